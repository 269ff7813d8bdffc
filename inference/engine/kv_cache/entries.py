"""Values of the prefix index: cells of a live or idle slot, and saved KV states. Data only."""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from inference.engine.kv_cache.purging import NO_TAGS, Tags
from inference.engine.kv_cache.radix_tree import RadixTree, Tokens
from inference.engine.sequences.cache_scope import SHARED
from inference.engine.sequences.sequence import Sequence


@dataclass(eq=False, slots=True)
class CellEntry:
    """Tokens of one slot. A slot with an ``owner`` is live, and only some of its tokens may be computed."""

    slot: int
    tokens: Tokens
    owner: Sequence | None = None
    ephemeral: bool = False
    tags: Tags = NO_TAGS  # owners, see ``purging``
    caller: str = ""  # who may reuse it, see ``cache_scope``
    exceeds_ram: bool = False  # the saved state is larger than the whole RAM tier

    @property
    def is_running(self) -> bool:
        return self.owner is not None

    @property
    def n_ready(self) -> int:
        return len(self.tokens) if self.owner is None else min(self.owner.n_computed, len(self.tokens))


@dataclass(eq=False, slots=True)
class KVSnapshot:
    """KV state saved at the end of ``tokens``; in RAM, on disk, or both."""

    tokens: Tokens
    first_position: int  # lowest position that every layer still holds
    state: bytes | None = None
    on_disk: bool = False
    ephemeral: bool = False  # RAM only: the request forbids storage
    tags: Tags = NO_TAGS  # owners, see ``purging``
    caller: str = ""  # who may reuse it, see ``cache_scope``
    is_superseded: bool = False  # a conversation continued from here; the state at its new end is worth more
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = snapshot_key(self.tokens, self.caller)

    @property
    def is_running(self) -> bool:
        return False

    @property
    def n_bytes(self) -> int:
        return self.tokens.nbytes + len(self.state or b"")

    @property
    def wants_disk(self) -> bool:
        return not (self.on_disk or self.is_superseded or self.ephemeral)


EntryTree = RadixTree[CellEntry | KVSnapshot]


def cells_of(sequence: Sequence, slot: int, n_tokens: int) -> CellEntry:
    """Describe the first ``n_tokens`` of a sequence, whose cells nobody computes further.

    The installation's own text has no owner, so that no purge removes it, and may be on disk.
    """
    tokens = np.asarray(sequence.tokens[:n_tokens], dtype=np.int32)
    if (caller := sequence.scope.caller_of(n_tokens)) == SHARED:
        return CellEntry(slot, tokens, caller=SHARED)
    return CellEntry(slot, tokens, ephemeral=sequence.ephemeral, tags=sequence.tags, caller=caller)


def snapshot_key(tokens: Tokens, caller: str) -> str:
    """Return the hexadecimal digest that identifies a state, in file names too."""
    digest = blake2b(np.ascontiguousarray(tokens).tobytes(), digest_size=16)
    digest.update(caller.encode())
    return digest.hexdigest()
