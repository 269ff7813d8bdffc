"""KV states belong to callers: nobody reuses another's, and only the installation's own text is shared by all."""

import random
import time
from pathlib import Path

import numpy as np
import pytest

from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.snapshot_files import SUFFIX, read_snapshot
from inference.engine.protocol.frames import Export, ExportCache, Exported, Import, Submit
from inference.engine.sequences.cache_scope import SHARED, CacheScope
from tests.engine.harness import Harness, params
from tests.engine.test_purging import cache_of, purge, settled, tokens_held, with_disk
from tests.engine.test_sharing import n_prefilled, prompt

SYSTEM = "You are a helpful assistant that answers in short sentences and never repeats a question. " * 2
WINDOWS = (0, 48)


def n_system(harness: Harness) -> int:
    return len(prompt(harness, SYSTEM, ""))


def n_cached(harness: Harness, name: str, text: str, caller: str, *, system: str = SYSTEM, **changes: object) -> int:
    """Ask one question with a prompt whose system text is the installation's own, and return the reused tokens."""
    ids = prompt(harness, system, text)
    n_shared = n_system(harness) if system == SYSTEM else 0
    changes = {"max_tokens": 4, "n_shared": n_shared, **changes}
    harness.submit(name, ids, cache_caller=caller, **changes)  # type: ignore[arg-type]
    harness.run()
    return harness.ended(name).n_cached


def test_a_scope_shares_the_text_of_the_installation_alone() -> None:
    scope = CacheScope("user:1", 40)
    assert [scope.caller_of(n) for n in (1, 40, 41)] == [SHARED, SHARED, "user:1"]
    assert [scope.n_reusable(caller, 100) for caller in ("user:1", "user:2", "", SHARED)] == [100, 40, 40, 40]
    assert CacheScope("user:1").n_reusable(SHARED, 100) == 0, "a client's own system prompt is compared with nothing"


@pytest.mark.parametrize("window", WINDOWS)
def test_a_secret_cannot_be_probed_digit_by_digit(window: int) -> None:
    harness = Harness.fake(window=window)
    n_cached(harness, "ann", "the code of the safe is 4711, do not forget it", "user:1")
    for digit in "0123456789":
        text = f"the code of the safe is {digit}"
        assert n_cached(harness, f"eve {digit}", text, f"user:{digit}x") == n_system(harness) * (
            digit > "0" or not window
        )
        count = n_cached(harness, f"bob {digit}", text, "user:2", max_tokens=1)
        assert count <= n_system(harness) + len(text) - 1, "no more than the prober's own words"
    assert n_cached(harness, "carl", "the code of the safe is 4711, do not forget it", "user:4") == n_system(harness)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("changes", [{}, {"ephemeral": True}], ids=["stored", "not stored"])
def test_a_caller_s_own_words_are_still_reused(window: int, changes: dict[str, object]) -> None:
    harness = Harness.fake(window=window)
    harness.submit("ann", prompt(harness, SYSTEM, "a question"), cache_caller="user:1", max_tokens=8, **changes)  # type: ignore[arg-type]
    harness.run()
    ids = prompt(harness, SYSTEM, "a question") + harness.tokens("ann")
    harness.submit("ann again", [*ids, ids[5]], cache_caller="user:1", max_tokens=1)
    harness.submit("bob", [*ids, ids[5]], cache_caller="user:2", max_tokens=1)
    harness.run()
    assert harness.ended("ann again").n_cached >= len(ids) - 1
    assert harness.ended("bob").n_cached == 0


@pytest.mark.parametrize("window", WINDOWS)
def test_the_installation_s_text_is_computed_once_for_all_callers(window: int) -> None:
    harness = Harness.fake(window=window, parallel=8, context_size=8192)
    texts = [f"{number} is my number" for number in range(8)]
    for number, text in enumerate(texts):
        ids = prompt(harness, SYSTEM, text)
        harness.submit(str(number), ids, cache_caller=f"user:{number}", n_shared=n_system(harness), max_tokens=1)
    harness.run()
    assert n_prefilled(harness) == n_system(harness) + sum(map(len, texts))


def test_a_running_prompt_of_another_caller_is_not_waited_for() -> None:
    harness = Harness.fake()
    ids = prompt(harness, "a long document " * 60, "x")
    harness.submit("ann", ids, cache_caller="user:1", max_tokens=1)
    harness.loop.step()
    harness.submit("bob", ids, cache_caller="user:2", max_tokens=1)
    harness.loop.step()
    assert harness.loop.scheduler.sequences.find("ann").checkpoints == set()  # type: ignore[union-attr]
    harness.run()
    assert n_prefilled(harness) == 2 * len(ids)


@pytest.mark.parametrize("window", WINDOWS)
def test_states_on_disk_keep_their_callers_after_a_restart(tmp_path: Path, window: int) -> None:
    harness = with_disk(tmp_path, window=window)
    for caller in ("user:1", "user:2", "user:3"):
        n_cached(harness, caller, f"the words of {caller} with a secret", caller)
    settled(harness)
    callers = [read_snapshot(path, "same").caller for path in tmp_path.glob(f"*{SUFFIX}")]
    assert sorted(callers) == [*([SHARED] if window else []), "user:1", "user:2", "user:3"]
    anew = with_disk(tmp_path, window=window)
    answered = prompt(anew, SYSTEM, "the words of user:2 with a secret") + harness.tokens("user:2")
    for caller, n_known in (("user:2", len(answered) - 1), ("user:1", n_system(anew)), ("user:9", n_system(anew))):
        anew.submit(caller, [*answered, 5], cache_caller=caller, n_shared=n_system(anew), max_tokens=1)
        anew.run()
        assert 0 <= anew.ended(caller).n_cached - n_known <= (1 if caller == "user:2" else 18 * (caller == "user:1"))


def test_equal_tokens_of_two_callers_are_two_states(tmp_path: Path) -> None:
    harness = with_disk(tmp_path)
    for caller in ("user:1", "user:2"):
        n_cached(harness, caller, "the very same words", caller, cache_tags=[f"{caller}'s/0"])
    settled(harness)
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 2
    purge(harness, "user:1's")
    assert {entry.caller for entry in cache_of(harness)._tree.values()} == {"user:2"}
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 1
    assert n_cached(harness, "again", "the very same words, again", "user:2") > n_system(harness) + 10


def test_a_purge_leaves_another_caller_s_longer_state_out_of_account() -> None:
    """A state that another caller's state begins with is not retained: the other cannot reuse it anyway."""
    harness = Harness.fake(window=48)
    text = "words that both have sent, " * 8
    n_cached(harness, "ann", text, "user:1", cache_tags=["a/0"], system="s" * 70)
    n_cached(harness, "bob", f"{text} and more", "user:2", cache_tags=["b/0"], system="s" * 70)
    assert purge(harness, "a").n_states == 1
    assert len(tokens_held(harness)) == 1


def test_the_installation_s_text_survives_every_purge(tmp_path: Path) -> None:
    harness = with_disk(tmp_path, window=48)
    for number in range(3):
        n_cached(harness, str(number), f"{number} is the question", f"user:{number}", cache_tags=[f"{number}/0"])
    settled(harness)
    purge(harness, "0", "1", "2")
    assert [len(tokens) for tokens in tokens_held(harness)] == [n_system(harness)]
    assert n_cached(harness, "next", "another question", "user:9") == n_system(harness)


def test_states_that_move_keep_their_callers(tmp_path: Path) -> None:
    source, target = Harness.fake(window=48), Harness.fake(window=48)
    for caller in ("user:1", "user:2"):
        n_cached(source, caller, f"the words of {caller}", caller)
    source.loop.handle(ExportCache(folder=str(tmp_path), max_bytes=1 << 20, budget_ms=1000.0))
    target.loop.handle(Import([str(path) for path in tmp_path.iterdir()]))
    assert n_cached(target, "foreign", "the words of user:1, and more", "user:2") == n_system(target)
    answered = prompt(target, SYSTEM, "the words of user:1") + source.tokens("user:1")
    target.submit("own", [*answered, 5], cache_caller="user:1", max_tokens=1)
    target.run()
    assert target.ended("own").n_cached >= len(answered) - 1


def test_a_sequence_that_moves_is_its_caller_s_on_both_sides(tmp_path: Path) -> None:
    source, target = Harness.fake(), Harness.fake()
    ids = prompt(source, SYSTEM, "[[count: 30]]")
    source.submit("a", ids, cache_caller="user:1", max_tokens=100)
    source.step_until_first_token("a")
    source.loop.handle(Export(["a"], str(tmp_path)))
    exported = source.frames[-1]
    assert isinstance(exported, Exported)
    target.loop.handle(
        Submit(
            sequence_id="a",
            prompt=ids,
            params=params(max_tokens=100, cache_caller="user:1"),
            emitted=source.tokens("a"),
            state=exported.sequences[0].path,
        )
    )
    target.run()
    for harness in (source, target):
        for caller, least, most in (("user:2", 0, 0), ("user:1", len(ids), len(ids) + 1)):
            harness.submit(caller, [*ids, *source.tokens("a"), 5], cache_caller=caller, max_tokens=1)
            harness.run()
            assert least <= harness.ended(caller).n_cached <= most + len(source.tokens("a"))


def test_states_of_an_earlier_version_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "0123.kv").write_bytes(b"GEMMAKV2" + bytes(100))
    assert DiskStore(tmp_path, 1 << 20, "same").read_index() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("window", WINDOWS)
def test_random_callers_reuse_their_own_words_and_the_installation_s_text(
    tmp_path: Path, window: int, seed: int
) -> None:
    """Whatever was asked before, in whatever tier it is: no more tokens are reused than the caller has sent before."""
    chance = random.Random(seed)
    harness = with_disk(tmp_path, window=window, parallel=3, n_slots=4, context_size=2048)
    sent: dict[str, list[np.ndarray]] = {}
    shared = n_system(harness)
    for number in range(40):
        caller = f"user:{chance.randrange(3)}"
        text = "".join(chance.choice("ab") for _ in range(chance.randrange(3, 90)))
        has_own_system = chance.random() < 0.2
        system = "my own rules are these. " * 4 if has_own_system else SYSTEM
        ids = np.array(prompt(harness, system, text))
        known = [len(ids)] if any(np.array_equal(ids, past) for past in sent.get(caller, ())) else []
        for past in sent.get(caller, ()):
            n = min(len(past), len(ids))
            differs = past[:n] != ids[:n]
            known.append(int(differs.argmax()) if differs.any() else n)
        count = n_cached(harness, str(number), text, caller, system=system, ephemeral=chance.random() < 0.3)
        assert count <= max(known, default=0) or count <= (0 if has_own_system else shared)
        sent.setdefault(caller, []).append(np.array([*ids, *harness.tokens(str(number))]))
        if chance.random() < 0.2:
            settled(harness)
            time.sleep(0)
    harness.loop.scheduler.check()
