"""`python -m flotilla_platform` is `flotilla`."""

from flotilla_platform.cli import main

main()
