"""The service counter of the good model: as much of it as its validators read."""
