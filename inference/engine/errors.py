"""Errors of the engine and of the process that runs it.

EngineError
|- ModelFileError      the GGUF file is missing, damaged or not a model
|- BackendError        the model library failed in the middle of work; the process should end
|- StepAborted         a step was ended early on request; its slots hold what was computed
|- AccountingError     cells or slots were lost or counted twice: a defect of the engine
|- SequenceError       one sequence cannot go on; the others can
|  |- BadLogitsError   its logits are not usable
|  |- GrammarError     its grammar allows no further token, or takes too much work
|- RunnerStartError    a runner process did not become ready
"""


class EngineError(Exception):
    """Base of this package's errors; programs compare ``code``."""

    code = "engine_error"


class ModelFileError(EngineError):
    """The model file cannot be used; the message names the file and the defect."""

    code = "model_file"


class BackendError(EngineError):
    """A llama.cpp call failed; the content of its KV cache is unknown afterwards."""

    code = "backend"


class StepAborted(EngineError):
    """The step was ended early because nothing waits for its result; the KV cache is intact."""

    code = "step_aborted"


class AccountingError(EngineError):
    """Free, used and cached cells do not add up to the pool; the message carries all the numbers."""

    code = "accounting"


class SequenceError(EngineError):
    """A sequence that cannot go on; the others are not affected."""

    @property
    def user_message(self) -> str:
        return str(self)


class BadLogitsError(SequenceError):
    """No token can be chosen: the logits of one sequence are not numbers, or all of them are forbidden."""

    code = "bad_logits"

    @property
    def user_message(self) -> str:
        return "the model's numbers for this sequence are not usable"


class GrammarError(SequenceError):
    """The grammar of one sequence cannot be compiled or followed."""

    code = "grammar_failed"


class RunnerStartError(EngineError):
    """A runner ended, or timed out, before it was ready; ``code`` is that of its Fatal frame, if it sent one."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
