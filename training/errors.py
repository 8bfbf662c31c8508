"""Errors that a user can fix; the message says how."""


class BadData(ValueError):
    """A data set, configuration or checkpoint cannot be used; the message names the file."""


class NoPackage(RuntimeError):
    """A package cannot be obtained; the message says why and what to do."""
