"""How everything about secrets is refused: a code, a name, a cure; never a value."""

from flotilla_platform.exit_codes import ExitCode, Failure


class SecretRefused(Failure):
    """A secret, a secret file or a key is refused.

    `slug` is stable. The message names files, keys and recipients; a value is never a part of it, so
    raise it `from None` where the cause could quote one.
    """

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(ExitCode.SECRET_REFUSED, f"{message} ({slug})")
        self.slug = slug
