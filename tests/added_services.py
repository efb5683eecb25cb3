"""Services that `flotilla new service` added, and what the corpus asks of them."""

from flotilla.service import Compose

ADDED: dict[str, Compose] = {}
ASKED: tuple[tuple[str, str], ...] = ()
"""Subject and body, in order."""
