"""Writing of KV states to files for other runners. Knows no cells."""

import logging
import os
from itertools import count
from pathlib import Path

import numpy as np

from inference.engine.kv_cache.entries import KVSnapshot
from inference.engine.kv_cache.state_files import SUFFIX, StateHeader, write_state
from inference.engine.sequences.sequence import Sequence

log = logging.getLogger(__name__)


class StateWriter:
    """``fingerprint`` identifies usable states; without one nothing is written."""

    def __init__(self, fingerprint: str) -> None:
        self._fingerprint = fingerprint
        self._numbers = count(1)

    def write(self, folder: Path, snapshot: KVSnapshot, state: bytes) -> tuple[str, int]:
        """Return path and bytes of the file; an empty path without a fingerprint or without room in the folder."""
        if not self._fingerprint:
            return "", 0
        # Files of an earlier process may be in the same folder.
        path = folder / f"{os.getpid()}-{next(self._numbers)}{SUFFIX}"
        header = StateHeader(
            self._fingerprint,
            snapshot.tokens.tobytes(),
            snapshot.first_position,
            snapshot.ephemeral,
            len(state),
            sorted(snapshot.tags),
            snapshot.caller,
        )
        try:
            return str(path), write_state(path, header, state)
        except OSError as error:
            log.warning("state not written tokens=%d error=%s", len(snapshot.tokens), error)
            return "", 0


def snapshot_of(sequence: Sequence) -> KVSnapshot:
    """Describe the private state of a sequence, in cells or swapped out."""
    # ``n_computed`` of a swapped-out sequence is 0; its state holds ``n_swapped`` tokens.
    n_tokens = sequence.n_computed or sequence.n_swapped
    tokens = np.asarray(sequence.tokens[:n_tokens], dtype=np.int32)
    caller = sequence.scope.caller_of(n_tokens)
    return KVSnapshot(tokens, 0, ephemeral=sequence.ephemeral, tags=sequence.tags, caller=caller)
