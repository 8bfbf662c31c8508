"""Errors that a user can do something about; their text says what."""


class BadData(ValueError):
    """A data set, configuration or checkpoint that cannot be used as it is; the text names the file."""


class NoPackage(RuntimeError):
    """A package that cannot be had; the text says why and what to do."""
