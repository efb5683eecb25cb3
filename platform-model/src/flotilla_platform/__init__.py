"""The platform model, and the command `flotilla` that runs a fleet from it."""
