"""What can go wrong in the engine and in the process that runs it.

EngineError
|- ModelFileError      the GGUF file is missing, damaged or not a model
|- BackendError        the model library failed in the middle of work; the process should end
|- BooksError          cells or slots were lost or counted twice: a bug here
|- BadLogitsError           the model gave no usable numbers for one sequence
|- RunnerStartError    a runner process did not become ready
"""


class EngineError(Exception):
    """Base of this package's errors; ``code`` is what programs compare."""

    code = "engine_error"


class ModelFileError(EngineError):
    """The model file cannot be used, whoever tries; the message names the file and what is wrong with it."""

    code = "model_file"


class BackendError(EngineError):
    """llama.cpp answered a call with an error; what its memory holds now is unknown."""

    code = "backend"


class AccountingError(EngineError):
    """Free, used and cached cells do not add up to the pool; the message carries all the numbers."""

    code = "books"


class BadLogitsError(EngineError):
    """No token can be chosen: the logits of one sequence are not numbers, or all of them are forbidden."""

    code = "bad_logits"


class RunnerStartError(EngineError):
    """A runner process ended, or was given up, before it was ready; ``code`` is its own when it had one to tell."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
