"""Errors that end a batch.

BatchError
|- OutputBusy      another process writes the same file
|- OutputForeign   the file holds something other than results
|- InputChanged    the results belong to another input or to other options
|- InputUnreadable the input cannot be read, or is not understood
|- ServiceGone     the service stopped during the batch and did not return
"""


class BatchError(Exception):
    """Base of this package's errors; the message is shown on the terminal."""


class OutputBusy(BatchError):
    """Another process holds the lock of the output file; one process at a time may append."""


class OutputForeign(BatchError):
    """The output file was not written by batch_prompts and is left unchanged."""


class InputChanged(BatchError):
    """Continuing would mix two runs in one file."""


class InputUnreadable(BatchError):
    """The input cannot be opened, or is neither lines nor JSON."""


class ServiceGone(BatchError):
    """No worker reports any more; the answers so far are kept and the next start continues."""
