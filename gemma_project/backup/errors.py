"""Errors of backup and restore; each message is meant for the operator."""


class BackupError(Exception):
    """The archive cannot be written, is not one, or does not fit this installation."""
