"""Container images of the fleet, made from the lock file without a registry (see `make images`).

engine      find a Docker engine, or install and start one of our own
stand_ins   base images from Debian packages and wheels, where the real ones cannot be pulled
context     what a build needs: wheels that the lock file names, and ours
bill        the bill of materials of an image (CycloneDX)
build       one image a deployable, the same from the same commit
fleet       the containers of `deploy/compose/compose.yaml`, up and down
"""
