"""The error for data that cannot be used."""


class DataError(ValueError):
    """A file of a data set is wrong. The message says what, in which file or image, and what to do.

    Args:
        message: for the user.
        kind: of error, a key of :data:`detrex.data.check.findings.KINDS`.
    """

    def __init__(self, message: str = "", kind: str = "invalid-entry"):
        super().__init__(message)
        self.kind = kind
