"""Files in the folder of saved states that no runner wrote: the start survives them, and so does the cache."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from inference.engine.kv_cache import snapshot_files
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.entries import KVSnapshot
from inference.engine.kv_cache.purging import PurgedTags
from inference.engine.kv_cache.snapshot_files import FRONT, MAGIC, _checksum
from inference.engine.protocol.frames import Submit
from inference.worker.state_leftovers import remove_purged_states
from tests.engine.harness import Harness, fake_config, params

SETTINGS = "these"
MAX_BYTES = 1 << 20


def state_file(**changes: Any) -> bytes:  # noqa: ANN401  any JSON value
    """Return a file with right checksums, and a head that may be wrong otherwise."""
    state = b"state"
    head = {
        "settings": SETTINGS,
        "tokens": np.arange(100, dtype=np.int32).tobytes(),
        "first_position": 0,
        "n_bytes": len(state),
        "checksum": _checksum(state),
        "tags": ["a/0"],
        "caller": "user:1",
        **changes,
    }
    packed = msgspec.msgpack.encode(head)
    return FRONT.pack(MAGIC, len(packed), _checksum(packed)) + packed + state


BROKEN = {
    "3 token bytes": state_file(tokens=b"abc"),
    "no tokens": state_file(tokens=b""),
    "a text as tokens": state_file(tokens="text"),
    "a negative size": state_file(n_bytes=-5),
    "a size beyond 64 bits": state_file(n_bytes=2**64 - 1),
    "tags that are no texts": state_file(tags=[1, 2]),
    "no caller": state_file(caller=None),
    "empty": b"",
    "a head of 4 GB": MAGIC + b"\xff" * 20,
    "zeros": bytes(1000),
    "an earlier version": b"GEMMAKV2" + state_file()[8:],
    "another name": state_file(),
}


def folder_of(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("of the operator")


OBJECTS: dict[str, Callable[[Path], object]] = {
    "a folder": folder_of,
    "a named pipe": os.mkfifo,
    "a dangling link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a folder": lambda path: path.symlink_to(path.parent),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


def works(folder: Path) -> None:
    """Store and read a state beside whatever is in the folder, and make room for others."""
    disk = DiskStore(folder, MAX_BYTES, SETTINGS)
    disk.read_index()
    snapshots = [KVSnapshot(np.arange(first, first + 100, dtype=np.int32), 0) for first in range(4)]
    for snapshot in snapshots:
        assert disk.write(snapshot, b"x" * (MAX_BYTES // 3), is_retained=True)
    disk.close(30)
    assert disk.read(snapshots[-1]) == b"x" * (MAX_BYTES // 3)
    assert len(list(folder.glob("*.kv"))) <= 4


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_deleted(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "0123456789abcdef.kv").write_bytes(content)
    assert DiskStore(tmp_path, MAX_BYTES, SETTINGS).read_index() == []
    assert list(tmp_path.iterdir()) == []
    works(tmp_path)


@pytest.mark.parametrize("suffix", [".kv", ".123.tmp"])
@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_what_is_no_file_is_left_alone(tmp_path: Path, make: Callable[[Path], object], suffix: str) -> None:
    strange = tmp_path / f"x{suffix}"
    make(strange)
    if not strange.is_symlink():
        os.utime(strange, (0, 0))
    assert DiskStore(tmp_path, MAX_BYTES, SETTINGS).read_index() == []
    remove_purged_states(PurgedTags(), cache_dir=tmp_path, shm_dir=tmp_path / "moves")
    if strange.is_dir() and not strange.is_symlink():
        assert (strange / "inside").read_text() == "of the operator"
        strange.rename(tmp_path / "aside")
        (tmp_path / "aside").rename(strange)
    works(tmp_path)


def test_a_folder_in_the_place_of_a_state_costs_that_state_alone(tmp_path: Path) -> None:
    harness = Harness.fake()
    disk = DiskStore(tmp_path, MAX_BYTES, SETTINGS)
    harness = Harness(harness.backend, fake_config(), disk=disk)
    ids = list(range(1, 200))
    harness.loop.handle(Submit(sequence_id="a", prompt=ids, params=params(max_tokens=1)))
    harness.run()
    [entry] = harness.loop.scheduler.cache.exportable()
    (tmp_path / f"{entry.key}{snapshot_files.SUFFIX}").mkdir()
    while harness.loop.work_while_idle():
        pass
    disk.close(10)
    harness.loop.handle(Submit(sequence_id="b", prompt=[*ids, 5], params=params(max_tokens=1)))
    harness.run()
    assert harness.ended("b").n_cached >= len(ids) - 1
