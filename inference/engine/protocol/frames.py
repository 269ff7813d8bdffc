"""Frames between a runner process and its parent, and their encoding.

Every frame is one msgpack map with a ``type`` tag, sent length-prefixed over a socket pair. Token indexes
count the tokens of one sequence from 1; a sequence moved from another runner continues with the next index.
"""

from pathlib import Path

import msgspec

from inference.engine.config import EngineConfig
from inference.engine.params import SequenceParams
from inference.engine.sampling.logprob_records import TokenLogprobs


class Frame(msgspec.Struct, frozen=True, tag_field="type", omit_defaults=True):
    """Base of all frames; the tag is the class name."""


# ---- parent -> runner ----


class Start(Frame, frozen=True, tag=True, kw_only=True):
    """First frame: model, process title, and the parent to end with. Answered by Ready or Fatal.

    ``deadline``: file of ``engine.process.deadline``; empty: none."""

    config: EngineConfig
    title: str
    parent_pid: int
    deadline: str = ""


class Submit(Frame, frozen=True, tag=True, kw_only=True):
    """Start a sequence, or continue one: ``emitted`` are the tokens of earlier runners."""

    sequence_id: str
    prompt: list[int]
    params: SequenceParams
    emitted: list[int] = []
    priority: int = 1
    timeout_secs: float | None = None  # from the arrival of the frame: clocks of two processes are never compared
    state: str = ""  # file with its KV state from an earlier runner
    keeps_state: bool = False  # leave the file for a later runner; else it is removed once read
    checkpoint_folder: str = ""  # for states of its prompt in progress
    checkpoint_bytes: int = 0  # room there for the states of all sequences; 0: none are written


class Cancel(Frame, frozen=True, tag=True):
    """Stop a sequence; answered by ``Ended`` with reason ``cancelled`` if it was active.

    After the present step, which ends early where all of its sequences are cancelled."""

    sequence_id: str


class Export(Frame, frozen=True, tag=True):
    """Remove sequences for another runner, with a state file each in ``folder``; answered by Exported alone."""

    sequence_ids: list[str]
    folder: str


class ExportCache(Frame, frozen=True, tag=True, kw_only=True):
    """Copy reusable KV states to files in ``folder``, youngest first; answered by CacheExported.

    At most ``max_bytes`` and about ``budget_ms``. ``is_continuation``: skip the states copied by earlier frames.
    ``excludes_imported``: skip states that came from the receiver."""

    folder: str
    max_bytes: int
    budget_ms: float
    is_continuation: bool = False
    excludes_imported: bool = False


class Import(Frame, frozen=True, tag=True):
    """Load states from files, which are removed; answered by Imported."""

    paths: list[str]


class Purge(Frame, frozen=True, tag=True):
    """Remove the KV states of these owners and store none of theirs later; answered by Purged with ``number``."""

    number: int
    tags: list[str]


class Stop(Frame, frozen=True, tag=True):
    """Leave the loop and exit; active sequences get no further frame."""

    save_secs: float  # time for writing KV states to disk


# ---- runner -> parent ----


class Ready(Frame, frozen=True, tag=True, kw_only=True):
    """The model is loaded and has produced its warm-up token."""

    model_name: str
    context_size: int
    trained_context: int
    gpu_layers: int
    load_ms: float
    warmup_ms: float


class Alive(Frame, frozen=True, tag=True):
    """The runner computes; sent about once a second while a step or other work makes progress."""


class Deferred(Frame, frozen=True, tag=True):
    """A sequence waits for room in the KV cache, or was preempted; ``reason`` is shown to its user.

    Sent once each time it begins to wait; the next PrefillProgress or token means that it continues."""

    sequence_id: str
    reason: str


class PrefillProgress(Frame, frozen=True, tag=True):
    """Number of prompt tokens computed so far; ``n_cached`` of them were reused."""

    sequence_id: str
    n_done: int
    n_total: int
    n_cached: int = 0


class Checkpointed(Frame, frozen=True, tag=True, kw_only=True):
    """KV state of a prompt in progress, in a file for a later runner; earlier ones of the sequence are not needed."""

    sequence_id: str
    path: str
    n_cached: int  # prompt tokens that its first runner reused


class Emission(msgspec.Struct, frozen=True, array_like=True):
    """A token. ``text`` is the text that it released: whole characters, nothing that may begin a stop sequence.

    ``logprobs`` only for a sequence with ``n_logprobs``, ``thought`` (text that is no part of the answer) only for one
    with marks of thoughts."""

    sequence_id: str
    index: int
    token: int
    text: str
    logprobs: TokenLogprobs | None = None
    thought: str = ""


class Step(Frame, frozen=True, tag=True, kw_only=True):
    """Result of one pass of the loop: emissions, batch, cost, and the KV cache after it.

    ``n_cached`` counts prompt tokens that sequences admitted since the last Step reused. Shared cells count once;
    ``free + used + cached`` is the whole pool."""

    emissions: list[Emission]
    n_prefill: int
    n_decode: int
    step_ms: float
    n_drafted: int = 0  # of ``n_decode``: draft tokens
    n_accepted: int = 0  # of ``n_drafted``: tokens that the sampler drew
    n_sequences: int = 0
    n_cached: int = 0
    n_waiting: int = 0
    cells_free: int = 0
    cells_used: int = 0
    cells_cached: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens computed in the batch."""
        return self.n_prefill + self.n_decode


class Ended(Frame, frozen=True, tag=True, kw_only=True):
    """End of a sequence. ``text`` and ``thought`` were held back until now; the first ``n_kept`` tokens make up the
    whole text (tokens that only completed a stop sequence are not kept). Times are ms in this runner."""

    sequence_id: str
    reason: str  # stop | length | cancelled | timeout
    text: str = ""
    thought: str = ""
    n_kept: int = 0
    n_cached: int = 0
    prefill_ms: float = 0.0
    first_token_ms: float = 0.0
    decode_ms: float = 0.0


class ExportedSequence(msgspec.Struct, frozen=True, array_like=True):
    """A sequence that has left a runner. ``path`` is empty without a KV state: its tokens are computed again."""

    sequence_id: str
    path: str
    n_bytes: int
    n_cached: int
    prefill_ms: float
    decode_ms: float


class Exported(Frame, frozen=True, tag=True):
    """Sequences exported; missing ones had finished and sent Ended before."""

    sequences: list[ExportedSequence]
    ms: float


class CacheExported(Frame, frozen=True, tag=True, kw_only=True):
    """Files of copied states; ``is_complete``: nothing is left that would fit."""

    paths: list[str]
    n_bytes: int
    ms: float
    is_complete: bool


class Imported(Frame, frozen=True, tag=True):
    """Number of states stored; states that do not fit this runner were dropped."""

    n_states: int
    ms: float


class Purged(Frame, frozen=True, tag=True):
    """Number of states removed from cells, RAM and disk; ``is_complete``: no file of them is queued any more."""

    number: int
    n_states: int
    is_complete: bool


class Rejected(Frame, frozen=True, tag=True):
    """The sequence can never run here; other sequences are not affected."""

    sequence_id: str
    code: str
    message: str


class Fatal(Frame, frozen=True, tag=True):
    """The runner cannot start; it exits after this."""

    code: str
    message: str


ToRunner = Submit | Cancel | Export | ExportCache | Import | Purge | Stop
FromRunner = (
    Ready
    | Alive
    | Deferred
    | PrefillProgress
    | Checkpointed
    | Step
    | Ended
    | Rejected
    | Exported
    | CacheExported
    | Imported
    | Purged
    | Fatal
)


def _from_text(kind: type, value: str) -> Path:
    if kind is not Path:
        raise NotImplementedError(f"no frame carries a {kind}")
    return Path(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=str)  # paths are the only foreign type
_start: msgspec.msgpack.Decoder[Start] = msgspec.msgpack.Decoder(Start, dec_hook=_from_text)
_to_runner: msgspec.msgpack.Decoder[ToRunner] = msgspec.msgpack.Decoder(ToRunner)
_from_runner: msgspec.msgpack.Decoder[FromRunner] = msgspec.msgpack.Decoder(FromRunner)


def encode(frame: Frame) -> bytes:
    return _encoder.encode(frame)


def decode_start(data: bytes) -> Start:
    return _start.decode(data)


def decode_to_runner(data: bytes) -> ToRunner:
    return _to_runner.decode(data)


def decode_from_runner(data: bytes) -> FromRunner:
    return _from_runner.decode(data)
