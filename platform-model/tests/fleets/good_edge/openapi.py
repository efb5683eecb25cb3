"""What it serves."""


def document_bytes() -> bytes:
    """Return the document."""
    return b"{}"
