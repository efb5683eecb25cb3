"""The one way in which embedded servers and their data directory fail."""


class EmbeddedError(Exception):
    """An embedded server or its data directory cannot be used; the message names the cure.

    `code` is stable: `data-directory-in-use`, `data-directory-corrupt`,
    `data-directory-of-another-topology`, `data-directory-not-writable`, `port-taken`,
    `server-missing` or `server-failed`. `log_tail` holds the last lines the server wrote, if any,
    and is also shown below a traceback.
    """

    def __init__(self, code: str, message: str, *, log_tail: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.log_tail = log_tail
        if log_tail:
            self.add_note(log_tail)
