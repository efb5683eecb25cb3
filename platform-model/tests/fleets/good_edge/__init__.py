"""The service edge of the good model: as much of it as its validators read."""
