"""The error for input that cannot be used."""


class DataError(ValueError):
    """A data set's file is wrong. The message says what, in which file or image, and what to do about it."""
