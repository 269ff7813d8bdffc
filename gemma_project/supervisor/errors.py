"""Errors that keep the service from starting.

StartupError
|- DataDirInUse     another supervisor has this data directory
|- DataDirUnusable  the data directory cannot be made or written to
|- AddressInUse     the port is taken, or is not an address of this machine
|- PartFailed       a process ended, or did not become ready, before the service was up
"""


class StartupError(Exception):
    """The service cannot start; the message is meant for the operator."""


class DataDirInUse(StartupError):
    """A second `serve` on the same data directory."""


class DataDirUnusable(StartupError):
    """GEMMA_DATA_DIR names no directory that can be used."""


class AddressInUse(StartupError):
    """The address to listen on is taken, unknown or not allowed."""


class PartFailed(StartupError):
    """A part of the service ended, or did not become ready, during start-up."""
