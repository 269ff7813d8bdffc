"""Why a batch cannot go on.

BatchError
|- OutputBusy      another process writes the same file
|- OutputForeign   the file holds something else than results
|- InputChanged    the results were made from another input or with other options
|- InputUnreadable the input is missing or no regular file
|- ServiceGone     the service stopped while the batch ran, and stayed away
"""


class BatchError(Exception):
    """Base of this package's errors; the message is for the person at the terminal."""


class OutputBusy(BatchError):
    """Exactly one process may append to a file of results."""


class OutputForeign(BatchError):
    """Nothing of it is touched."""


class InputChanged(BatchError):
    """Going on would mix two runs in one file."""


class InputUnreadable(BatchError):
    """It is read twice, so it has to be a file."""


class ServiceGone(BatchError):
    """What was answered is kept; the next start goes on."""
