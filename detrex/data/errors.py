"""The error for input that cannot be used."""


class DataError(ValueError):
    """A data set's file is wrong. The message says what, in which file or image, and what to do about it.

    Args:
        message: for the user.
        kind: of error, as in :data:`detrex.data.check.findings.KINDS`.
    """

    def __init__(self, message: str = "", kind: str = "invalid-entry"):
        super().__init__(message)
        self.kind = kind
