"""The tiers of the cache: RAM with a cap, files that survive the process, and files that are not sound."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inference.engine.backends.vocabulary import Vocabulary
from inference.engine.config import EngineConfig, FlashAttention, KvType
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.entries import EntryTree, KVSnapshot
from inference.engine.kv_cache.fingerprint import state_fingerprint
from inference.engine.kv_cache.radix_tree import RadixTree, Tokens
from inference.engine.kv_cache.snapshots import SnapshotStore
from inference.engine.protocol.frames import Submit
from tests.engine.harness import Harness, fake_config, params
from tests.engine.test_runner import Watched
from tests.engine.test_sharing import n_prefilled, prompt

SETTINGS = "these"
MEBIBYTE = 1 << 20


def tokens(first: int, n_tokens: int = 100) -> Tokens:
    return np.arange(first, first + n_tokens, dtype=np.int32)


def files(folder: Path, max_bytes: int = MEBIBYTE, settings: str = SETTINGS) -> DiskStore:
    return DiskStore(folder, max_bytes, settings)


def written(folder: Path, *snapshots: tuple[Tokens, bytes], max_bytes: int = MEBIBYTE) -> None:
    disk = files(folder, max_bytes)
    for held, state in snapshots:
        assert disk.write(KVSnapshot(held, 0), state)
        while disk._queued:
            time.sleep(0.001)
    disk.close(10)


# ---- RAM ----


def test_ram_never_holds_more_than_its_cap() -> None:
    index: EntryTree = RadixTree()
    store = SnapshotStore(index, 5000)
    for number in range(20):
        store.put(tokens(1000 * number), 0, b"x" * (400 + 50 * number))
        assert store.n_bytes <= 5000
        assert store.n_bytes == sum(each.n_bytes for each in store._in_ram.values())
        assert len(store) == len(index) == len(store._in_ram)
    store.put(tokens(5), 0, b"x" * 5001)
    assert not store.contains(tokens(5)), "larger than everything"
    assert store.contains(tokens(19_000)), "and nobody had to go for it"


def test_the_least_recently_used_goes_first() -> None:
    store = SnapshotStore(RadixTree(), 3 * 1400)
    for first in (1, 1001, 2001):
        store.put(tokens(first), 0, b"x" * 1000)
    assert store.read(store._all[KVSnapshot(tokens(1), 0).key]) == b"x" * 1000
    store.put(tokens(3001), 0, b"x" * 1000)
    assert [store.contains(tokens(first)) for first in (1, 1001, 2001, 3001)] == [True, False, True, True]


def test_what_a_conversation_has_passed_goes_before_the_ends_of_others() -> None:
    store = SnapshotStore(RadixTree(), 3 * 1400)
    for first in (1, 1001, 2001):
        store.put(tokens(first), 0, b"x" * 1000)
    store.supersede(tokens(2001))
    store.put(tokens(3001), 0, b"x" * 1000)
    assert [store.contains(tokens(first)) for first in (1, 1001, 2001, 3001)] == [True, True, False, True]


def test_an_evicted_conversation_comes_back_from_ram() -> None:
    harness = Harness.fake(window=48, parallel=1, n_slots=2)
    history = prompt(harness, "s" * 300, "[[count: 30]]")
    harness.submit("first", history)
    harness.run()
    for number in range(3):
        harness.submit(f"other {number}", prompt(harness, f"{number}" * 200, "x"))
        harness.run()
    answer = harness.tokens("first")
    before = n_prefilled(harness)
    harness.submit("second", history + answer + harness.backend.vocabulary.encode("\n[[say: on]]", special=False))
    harness.run()
    assert harness.ended("second").n_cached == len(history) + len(answer)
    assert n_prefilled(harness) - before == len("\n[[say: on]]")


def test_who_gave_way_comes_back_without_computing_again() -> None:
    harness = Harness.fake(context_size=300, parallel=3)
    for name, priority in (("batch", 2), ("one", 1), ("two", 1)):
        harness.ask(name, "[[count: 45]]", priority=priority)
    harness.run()
    expected = "".join(f"{number} " for number in range(1, 46))
    assert [harness.text(name) for name in ("batch", "one", "two")] == [expected] * 3
    n_prompts = sum(harness.progress(name)[0][1] for name in ("batch", "one", "two"))
    assert n_prefilled(harness) <= n_prompts + 5, "a token or two each time it comes back"


# ---- files ----


def test_what_was_written_is_found_and_read_by_another(tmp_path: Path) -> None:
    folder = tmp_path / "kv-cache"
    written(folder, (tokens(7), b"state" * 100))
    disk = files(folder)
    (found,) = disk.read_index()
    assert np.array_equal(found.tokens, tokens(7))
    assert disk.read(found) == b"state" * 100
    disk.close(10)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("damage", ["cut", "empty", "magic", "head", "longer", "name", "settings"])
def test_a_file_that_is_not_sound_is_deleted_at_the_start(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, (tokens(7), b"state" * 100))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "head":
        data[60] ^= 1
    if damage == "magic":
        data[0] ^= 1
    changed = {"cut": bytes(data[:-1]), "empty": b"", "longer": bytes(data) + b"x"}
    path.write_bytes(changed.get(damage, bytes(data)))
    if damage == "name":
        path.rename(path.with_stem("0" * 32))
    disk = files(tmp_path, settings="others" if damage == "settings" else SETTINGS)
    assert disk.read_index() == []
    disk.close(10)
    assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1


def test_a_damaged_state_is_noticed_when_it_is_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, (tokens(7), b"state" * 100))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    index: EntryTree = RadixTree()
    store = SnapshotStore(index, MEBIBYTE, files(tmp_path))
    assert len(index) == 1
    assert store.read(next(iter(store._all.values()))) is None
    assert (len(index), len(store), list(tmp_path.iterdir())) == (0, 0, [])
    assert len(caplog.records) == 1


def test_files_never_take_more_than_the_cap_and_the_oldest_goes(tmp_path: Path) -> None:
    written(tmp_path, *((tokens(1000 * number), b"x" * 3000) for number in range(6)), max_bytes=12_000)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 12_000
    disk = files(tmp_path)
    assert sorted(int(each.tokens[0]) for each in disk.read_index()) == [3000, 4000, 5000]
    disk.close(10)


def test_ram_overflows_to_disk_and_comes_back(tmp_path: Path) -> None:
    store = SnapshotStore(RadixTree(), 2500, files(tmp_path))
    for first in (1, 1001, 2001):
        store.put(tokens(first), 0, b"%d" % first * 400)
    assert store.n_bytes <= 2500
    for first in (1, 1001, 2001):
        snapshot = store._all[KVSnapshot(tokens(first), 0).key]
        assert store.read(snapshot) == b"%d" % first * 400
    store.close(10)


class SlowFiles(DiskStore):
    """A disk that nothing reaches before its runner ends."""

    def __init__(self, folder: Path, max_bytes: int, settings: str) -> None:
        self.may_write = threading.Event()
        super().__init__(folder, max_bytes, settings)

    def _write(self, snapshot: KVSnapshot, state: bytes) -> None:
        self.may_write.wait(30)
        super()._write(snapshot, state)

    def close(self, timeout_secs: float) -> None:
        self.may_write.set()
        super().close(timeout_secs)


def on_disk(folder: Path) -> list[int]:
    """Return the first tokens of the snapshots in the next process's index."""
    disk = files(folder)
    found = sorted(int(each.tokens[0]) for each in disk.read_index())
    disk.close(10)
    return found


def test_all_of_ram_survives_the_end_however_slow_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart used to lose every conversation in RAM beyond the 256 MB that may wait for the disk."""
    monkeypatch.setattr("inference.engine.kv_cache.disk_store.MAX_QUEUED_BYTES", 1000)
    store = SnapshotStore(RadixTree(), MEBIBYTE, SlowFiles(tmp_path, MEBIBYTE, SETTINGS))
    for number in range(1, 9):
        store.put(tokens(number * 1000), 0, b"x" * 600)
    store.close(10)
    assert on_disk(tmp_path) == [number * 1000 for number in range(1, 9)]


def test_idle_moments_bring_ram_to_disk_the_youngest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.engine.kv_cache.disk_store.MAX_QUEUED_BYTES", 1000)
    store = SnapshotStore(RadixTree(), MEBIBYTE, SlowFiles(tmp_path, MEBIBYTE, SETTINGS))
    for number in range(1, 9):
        store.put(tokens(number * 1000), 0, b"x" * 600, ephemeral=number == 8)
    store.supersede(tokens(7000))
    assert [store.flush_one() for _ in range(3)] == [True, True, False], "1,200 bytes wait: the disk cannot follow"
    assert [number for number in range(1, 9) if store.contains(tokens(number * 1000), on_disk=True)] == [5, 6]


def settled(disk: DiskStore) -> None:
    deadline = time.monotonic() + 30
    while disk._queued:
        assert time.monotonic() < deadline, "the disk does not write"
        time.sleep(0.001)


@pytest.mark.parametrize("is_the_end", [False, True])
def test_a_disk_smaller_than_ram_gets_the_youngest_that_fit(tmp_path: Path, is_the_end: bool) -> None:
    """Each one written used to push out a younger one, and one too large for the disk to keep all behind it in RAM."""
    disk = files(tmp_path, 12_000)
    store = SnapshotStore(RadixTree(), MEBIBYTE, disk)
    for number in range(1, 9):
        store.put(tokens(number * 1000), 0, b"x" * (13_000 if number == 8 else 1000))
    while not is_the_end and store.flush_one():
        settled(disk)
        store.sync_disk()
    store.close(10)
    assert on_disk(tmp_path) == [4000, 5000, 6000, 7000]


@pytest.mark.parametrize("n_conversations", [1, 5])
def test_what_left_the_cells_for_ram_reaches_the_disk_while_the_runner_is_idle(
    tmp_path: Path, n_conversations: int
) -> None:
    harness = Harness.fake(context_size=4096)
    disk = files(tmp_path, 100 * MEBIBYTE)
    harness = Harness(harness.backend, harness.config, disk=disk)
    for number in range(n_conversations):
        harness.ask(str(number), f"{number}" * 600)
        harness.run()
    assert harness.loop.pool.n_cached < 1024 + 700, "the others are in RAM"
    while harness.loop.work_while_idle():
        pass
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("*.kv"))) < n_conversations:
        assert time.monotonic() < deadline, "a crash would lose some"
        time.sleep(0.02)
    disk.close(10)


def test_a_folder_that_takes_no_file_costs_nothing_but_the_cache(tmp_path: Path) -> None:
    store = SnapshotStore(RadixTree(), 0, files(tmp_path))
    tmp_path.rename(tmp_path.with_name("away"))
    store.put(tokens(1), 0, b"x" * 100)
    store.close(10)
    store.sync_disk()
    assert len(store) == 0


def test_what_changes_a_state_changes_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"a" * 100_000)
    config = EngineConfig(model_path=path)
    same = EngineConfig(model_path=path, threads=7, context_size=100, batch_size=9)
    assert state_fingerprint(config) == state_fingerprint(same)
    others = [
        EngineConfig(model_path=path, kv_type_k=KvType.Q8_0),
        EngineConfig(model_path=path, kv_type_v=KvType.Q8_0),
        EngineConfig(model_path=path, flash_attention=FlashAttention.OFF),
    ]
    identities = {state_fingerprint(each) for each in (config, *others)}
    path.write_bytes(b"a" * 99_999 + b"b")
    identities.add(state_fingerprint(config))
    assert len(identities) == 5


# ---- over the death of the process ----


def turn_in(
    config: EngineConfig, history: list[int], *, kill: bool = False, **changes: object
) -> tuple[list[int], int]:
    """One turn in a runner process of its own: the answer's tokens, and how many of the prompt were not computed."""
    watched = Watched(config)
    watched.runner.start()
    watched.runner.send(Submit(sequence_id="a", prompt=history, params=params(**changes)))
    watched.wait(lambda: watched.ended("a") is not None)
    if kill:
        assert config.cache_dir is not None
        deadline = time.monotonic() + 30
        while not list(config.cache_dir.glob("*.kv")):
            assert time.monotonic() < deadline, "nothing is written while the runner is idle"
            time.sleep(0.02)
        os.kill(watched.runner.pid, signal.SIGKILL)
        watched.wait(lambda: bool(watched.exits))
    else:
        watched.runner.stop(10)
    ended = watched.ended("a")
    assert ended is not None
    return [each.token for each in watched.emissions("a")], ended.n_cached


@pytest.mark.parametrize("kill", [False, True])
def test_a_conversation_goes_on_after_a_restart(tmp_path: Path, kill: bool) -> None:
    config = fake_config(cache_dir=tmp_path)
    harness = Harness.fake()
    history = prompt(harness, "s" * 2000, "[[count: 20]]")
    answer, n_cached = turn_in(config, history, kill=kill)
    assert n_cached == 0
    after = history + answer + harness.backend.vocabulary.encode("\n[[say: go on]]", special=False)
    again, n_cached = turn_in(config, after)
    assert n_cached >= len(history) + len(answer) - 1
    assert harness.backend.vocabulary.text(again) == "go on"


def test_what_nobody_keeps_reaches_no_disk(tmp_path: Path) -> None:
    """Neither while the runner is idle, nor at its end, nor from a RAM that overflows."""
    config = fake_config(cache_dir=tmp_path, cache_ram_mb=0, parallel=1)
    watched = Watched(config)
    watched.runner.start()
    for number in range(4):  # more than there are slots: the first are pushed out
        name = f"secret {number}"
        text = f"{number} {'s' * 500} [[count: 20]]"
        watched.ask(name, text, ephemeral=True)
        watched.wait(lambda name=name: watched.ended(name) is not None)  # type: ignore[misc]
    watched.runner.stop(10)
    assert list(tmp_path.rglob("*.kv")) == []


def test_the_same_tokens_are_kept_once_somebody_wants_them_kept(tmp_path: Path) -> None:
    store = SnapshotStore(RadixTree(), 10_000, files(tmp_path))
    store.put(tokens(1), 0, b"state", ephemeral=True)
    store.put(tokens(1000), 0, b"state", ephemeral=True)
    store.put(tokens(1), 0, b"state")
    store.close(10)
    disk = files(tmp_path)
    assert [int(each.tokens[0]) for each in disk.read_index()] == [1]
    disk.close(10)


@pytest.mark.real_model
def test_a_restart_of_the_real_model_changes_no_token(
    tmp_path: Path, real_config: EngineConfig, real_vocabulary: Vocabulary
) -> None:
    text = " ".join(f"Item {number} of the long list is called number {number * 7 % 101}." for number in range(80))
    history = [2, *real_vocabulary.encode(text, special=False)][:1024]
    config = EngineConfig(
        model_path=real_config.model_path,
        context_size=2048,
        batch_size=256,
        threads=1,
        flash_attention=FlashAttention.OFF,
        cache_dir=tmp_path,
    )
    answer, _ = turn_in(config, history, max_tokens=8, ignore_eos=True)
    after = [*history, *answer, *real_vocabulary.encode(" And so on:", special=False)]
    continued, n_cached = turn_in(config, after, max_tokens=8, ignore_eos=True)
    assert n_cached == len(history) + 7
    fresh, _ = turn_in(
        EngineConfig(model_path=real_config.model_path, context_size=2048, threads=1, flash_attention="off"),  # type: ignore[arg-type]
        after,
        max_tokens=8,
        ignore_eos=True,
    )
    assert continued == fresh
