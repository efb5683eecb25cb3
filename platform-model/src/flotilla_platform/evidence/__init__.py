"""What the code and the files of a fleet really say, to be held against its model."""
