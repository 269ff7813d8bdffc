"""Purging an owner: its states leave cells, RAM and disk; states shared with others remain with them."""

import time
from pathlib import Path

import numpy as np
import pytest

from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.entries import KVSnapshot
from inference.engine.kv_cache.prefix_cache import PrefixCache
from inference.engine.kv_cache.purging import PurgedTags
from inference.engine.kv_cache.snapshot_files import tags_of
from inference.engine.protocol.frames import Export, ExportCache, Exported, Import, Imported, Purge, Purged, Submit
from tests.engine.harness import Harness, params
from tests.engine.test_sharing import n_prefilled, prompt

SHARED = "You are a helpful assistant that answers in short sentences and never repeats a question. " * 2
MEBIBYTE = 1 << 20


def purge(harness: Harness, *tags: str) -> Purged:
    harness.loop.handle(Purge(7, list(tags)))
    answer = harness.frames[-1]
    assert isinstance(answer, Purged)
    assert answer.number == 7
    harness.loop.pool.check()
    cache_of(harness).idle.check()
    return answer


def talk(harness: Harness, name: str, text: str, *tags: str, **changes: object) -> list[int]:
    """One answered turn; all of its tokens."""
    ids = prompt(harness, SHARED, f"User: {text}\nAssistant:")
    changes.setdefault("max_tokens", 8)
    harness.submit(name, ids, cache_tags=list(tags), **changes)  # type: ignore[arg-type]
    harness.run()
    return ids + harness.tokens(name)


def cache_of(harness: Harness) -> PrefixCache:
    return harness.loop.scheduler.cache


def tokens_held(harness: Harness) -> list[list[int]]:
    return [entry.tokens.tolist() for entry in cache_of(harness)._tree.values()]


def n_cached(harness: Harness, name: str, ids: list[int], *tags: str) -> int:
    harness.submit(name, ids, cache_tags=list(tags), max_tokens=1)
    harness.run()
    return harness.ended(name).n_cached


def with_disk(folder: Path, **changes: object) -> Harness:
    made = Harness.fake(**changes)  # type: ignore[arg-type]
    return Harness(made.backend, made.config, disk=DiskStore(folder, 8 * MEBIBYTE, "same"))


def on_disk(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def tags_on_disk(folder: Path) -> set[frozenset[str]]:
    return {frozenset(tags_of(path)) for path in on_disk(folder)}


def settled(harness: Harness) -> None:
    """Everything that is to be on disk is there."""
    while harness.loop.work_while_idle():
        pass
    disk = harness.disk
    assert isinstance(disk, DiskStore)
    while disk._queued:
        time.sleep(0.001)
    cache_of(harness).snapshots.sync_disk()


def test_tags_are_purged_by_owner_or_by_epoch() -> None:
    purged = PurgedTags()
    purged.add(["a", "b/0"])
    assert purged.remaining(["a", "a/0", "a/3", "b", "b/0", "b/1", "ab", "ab/0"]) == {"b", "b/1", "ab", "ab/0"}
    assert purged.covers(frozenset({"a/1", "b/0"}))
    assert not purged.covers(frozenset({"a/1", "b/1"}))
    assert not purged.covers(frozenset()), "what has no owner is nobody's to purge"


def test_a_purged_conversation_is_computed_anew_and_the_shared_prefix_still_hits(harness: Harness) -> None:
    first = talk(harness, "a", "the launch code is 4711", "a/0")
    second = talk(harness, "b", "the weather tomorrow", "b/0")
    shared = len(prompt(harness, SHARED, ""))
    assert purge(harness, "a").n_states >= 1
    assert n_cached(harness, "a again", [*first, first[5]], "c/0") <= shared + len("User: the ")
    assert n_cached(harness, "b again", [*second, second[5]], "b/0") >= len(second) - 1
    ids = prompt(harness, SHARED, "Something else")
    assert n_cached(harness, "c", ids, "c/0") >= shared - 5, "the shared prefix is there for others"


def test_nothing_of_a_purged_owner_is_left_in_any_tier(tmp_path: Path) -> None:
    harness = with_disk(tmp_path, window=48, parallel=1, n_slots=2)
    for number in range(4):
        talk(harness, f"a{number}", f"secret number {number}", "a/0")
    mine = talk(harness, "b", "the weather", "b/0")
    settled(harness)
    assert len(on_disk(tmp_path)) >= 4
    assert purge(harness, "a").is_complete
    assert all(ids == mine[: len(ids)] for ids in tokens_held(harness))
    for path in on_disk(tmp_path):
        data = path.read_bytes()
        secret = harness.backend.vocabulary.encode("secret number", special=False)
        assert np.array(secret, dtype=np.int32).tobytes() not in data
    assert n_cached(harness, "b again", [*mine, mine[5]], "b/0") >= len(mine) - 1


def test_what_others_begin_with_stays_and_is_theirs_after_a_restart(tmp_path: Path) -> None:
    """The end of a common prefix is saved under the second that reaches it; its file must not keep that name alone."""
    harness = with_disk(tmp_path, window=48, parallel=2)
    talk(harness, "a", "one", "a/0")
    talk(harness, "b", "two", "b/0")
    third = talk(harness, "c", "three", "c/0")
    settled(harness)
    assert frozenset({"b/0"}) in tags_on_disk(tmp_path)
    n_before = len(on_disk(tmp_path))
    purge(harness, "b")
    settled(harness)
    assert len(on_disk(tmp_path)) == n_before - 1
    assert tags_on_disk(tmp_path) == {frozenset({"a/0"}), frozenset({"c/0"}), frozenset({"a/0", "c/0"})}
    anew = with_disk(tmp_path, window=48, parallel=2)
    assert n_cached(anew, "c again", [*third, third[5]], "c/0") >= len(third) - 1
    purge(anew, "a")
    purge(anew, "c")
    assert on_disk(tmp_path) == []
    assert tokens_held(anew) == []


def test_an_owner_with_the_very_same_tokens_keeps_them() -> None:
    harness = Harness.fake()
    ids = talk(harness, "a", "the same question", "a/0")
    talk(harness, "fork", "the same question", "b/0")
    purge(harness, "a")
    assert n_cached(harness, "b again", [*ids, ids[5]], "b/0") >= len(ids) - 1
    purge(harness, "b")
    assert n_cached(harness, "c", [*ids, ids[5]], "c/0") == 0


def test_states_of_turns_that_nobody_stores_go_with_the_conversation_they_contain() -> None:
    harness = Harness.fake()
    ids = talk(harness, "a", "a secret", "a/0")
    harness.submit("passing", [*ids, *ids[5:9]], ephemeral=True, max_tokens=2)
    harness.run()
    purge(harness, "a")
    assert tokens_held(harness) == []


def test_a_running_sequence_goes_on_and_leaves_nothing() -> None:
    harness = Harness.fake()
    harness.submit("a", prompt(harness, SHARED, "[[count: 30]]"), cache_tags=["a/0"], max_tokens=200)
    harness.step_until_first_token("a")
    purge(harness, "a/0")
    harness.run()
    assert harness.text("a") == "".join(f"{number} " for number in range(1, 31))
    assert tokens_held(harness) == []
    assert harness.loop.pool.n_free == harness.loop.pool.n_cells


def test_one_that_gives_way_after_its_purge_is_saved_nowhere() -> None:
    harness = Harness.fake(context_size=400, parallel=2)
    harness.submit("batch", prompt(harness, SHARED, "[[count: 60]]"), cache_tags=["a/0"], priority=2, max_tokens=180)
    harness.step_until_first_token("batch")
    purge(harness, "a")
    harness.ask("urgent", "x" * 120, priority=1, cache_tags=["b/0"])
    harness.run()
    assert len(harness.tokens("batch")) > 100
    assert not any(entry.tags & {"a/0"} for entry in cache_of(harness)._tree.values())


def test_a_later_epoch_is_kept() -> None:
    harness = Harness.fake()
    purge(harness, "a/0")
    ids = talk(harness, "a", "after the purge", "a/1")
    assert n_cached(harness, "again", [*ids, ids[5]], "a/1") >= len(ids) - 1


def test_what_is_on_its_way_from_another_runner_is_refused(tmp_path: Path) -> None:
    source, target = Harness.fake(), Harness.fake()
    talk(source, "a", "a secret", "a/0")
    kept = talk(source, "b", "the weather", "b/0")
    source.loop.handle(ExportCache(folder=str(tmp_path), max_bytes=MEBIBYTE, budget_ms=1000.0))
    purge(target, "a")
    target.loop.handle(Import([str(path) for path in tmp_path.iterdir()]))
    imported = target.frames[-1]
    assert isinstance(imported, Imported)
    assert imported.n_states == 1
    assert tokens_held(target) == [kept[: len(tokens_held(target)[0])]]
    assert list(tmp_path.iterdir()) == []


def test_a_sequence_that_moved_keeps_its_owner(tmp_path: Path) -> None:
    source, target = Harness.fake(), Harness.fake()
    ids = prompt(source, SHARED, "[[count: 30]]")
    source.submit("a", ids, cache_tags=["a/0"], max_tokens=100)
    source.step_until_first_token("a")
    source.loop.handle(Export(["a"], str(tmp_path)))
    exported = source.frames[-1]
    assert isinstance(exported, Exported)
    target.loop.handle(
        Submit(
            sequence_id="a",
            prompt=ids,
            params=params(max_tokens=100, cache_tags=["a/0"]),
            emitted=source.tokens("a"),
            state=exported.sequences[0].path,
        )
    )
    target.run()
    for harness in (source, target):
        assert tokens_held(harness) != []
        purge(harness, "a")
        assert tokens_held(harness) == []


def test_a_file_that_is_being_written_is_removed_too(tmp_path: Path) -> None:
    disk = DiskStore(tmp_path, 64 * MEBIBYTE, "same")
    for round_number in range(20):
        snapshot = KVSnapshot(np.arange(round_number, round_number + 100, dtype=np.int32), 0, tags=frozenset({"a"}))
        assert disk.write(snapshot, b"x" * (MEBIBYTE // 2))
        time.sleep(0.0005 * round_number)
        disk.remove(snapshot)
        deadline = time.monotonic() + 10
        while not disk.has_removed_all:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert on_disk(tmp_path) == []
    other = KVSnapshot(np.arange(100, dtype=np.int32), 0)
    assert disk.write(other, b"state"), "the same tokens may come again"
    while disk._queued:
        time.sleep(0.001)
    assert disk.read(other) == b"state"


@pytest.mark.parametrize("repetition", range(3))
def test_purges_at_random_leave_the_accounting_and_the_answers_right(repetition: int, tmp_path: Path) -> None:
    random = np.random.default_rng(repetition)
    harness = with_disk(tmp_path, window=48, context_size=1500, parallel=3, cache_ram_mb=1)
    purged: set[str] = set()
    for number in range(60):
        owner = f"{random.integers(6)}/{number // 20}"
        text = f"[[count: {random.integers(5, 25)}]] {owner}"
        harness.submit(f"{number}", prompt(harness, SHARED, text), cache_tags=[owner], max_tokens=60)
        for _ in range(random.integers(30)):
            harness.loop.step()
        if random.random() < 0.3:
            harness.loop.handle(Purge(number, [owner]))
            purged.add(owner)
        if random.random() < 0.1:
            harness.run()
            settled(harness)
    harness.run()
    for number in range(60):
        harness.ended(f"{number}")
    purge(harness, *map(str, range(6)))
    assert tokens_held(harness) == []
    settled(harness)
    assert on_disk(tmp_path) == []
    assert purged
    assert n_prefilled(harness) > 0
