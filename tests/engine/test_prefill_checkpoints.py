"""Checkpoints of prompts in progress: when they are written, their cost and room, and the runner that continues."""

import time
from pathlib import Path

import msgspec
import pytest

from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import EngineConfig
from inference.engine.core.prefill_checkpoints import COST_SHARE
from inference.engine.kv_cache.state_files import consume_state
from inference.engine.protocol.frames import Cancel, Checkpointed, Purge, Submit
from tests.engine.harness import Harness, params, turn


def long_prompt(harness: Harness, length: int = 700, *, delay_ms: int = 2) -> list[int]:
    text = f"[[delay: {delay_ms}]]" + " ".join(f"{number}, and then" for number in range(400))
    return turn(harness.backend.vocabulary, text)[:length]


def submit(
    harness: Harness,
    prompt: list[int],
    folder: Path | str,
    *,
    state: str = "",
    max_bytes: int = 1 << 30,
    **changes: object,
) -> None:
    values: dict[str, object] = {"max_tokens": 8, "ignore_eos": True, **changes}
    harness.loop.handle(
        Submit(
            sequence_id="a",
            prompt=prompt,
            params=params(**values),
            state=state,
            keeps_state=True,
            checkpoint_folder=str(folder),
            checkpoint_bytes=max_bytes,
        )
    )


def written(harness: Harness) -> list[Checkpointed]:
    return [frame for frame in harness.frames if isinstance(frame, Checkpointed)]


def until_written(harness: Harness, count: int = 1) -> Checkpointed:
    while len(written(harness)) < count:
        assert harness.loop.step(), "the prompt was computed before"
    return written(harness)[-1]


def eager(**changes: object) -> Harness:
    """Writes after every slice for which there is time."""
    return Harness.fake(checkpoint_secs=0.001, **changes)  # type: ignore[arg-type]


def n_tokens(path: str) -> int:
    """Return the tokens of a checkpoint; the file stays."""
    header, _ = consume_state(Path(path), "same", keeps_file=True)
    return len(header.tokens)


# ---- when, and when not ----


def test_a_prompt_in_progress_is_written_and_a_complete_one_is_not(tmp_path: Path) -> None:
    harness = eager()
    prompt = long_prompt(harness)
    submit(harness, prompt, tmp_path)
    harness.run()
    lengths = [n_tokens(frame.path) for frame in written(harness)]
    assert lengths
    assert lengths == sorted(set(lengths))
    assert lengths[-1] < len(prompt)


@pytest.mark.parametrize(("folder", "max_bytes"), [("", 0), ("/nowhere/at/all", 1 << 20)])
def test_without_a_folder_nothing_is_written(folder: str, max_bytes: int) -> None:
    harness = eager()
    submit(harness, long_prompt(harness), folder, max_bytes=max_bytes)
    assert len(harness.run().tokens("a")) == 8
    assert not written(harness)


def test_a_short_prompt_is_not_worth_a_file(tmp_path: Path) -> None:
    harness = Harness.fake()
    submit(harness, long_prompt(harness, 200), tmp_path)
    harness.run()
    assert not list(tmp_path.iterdir())


def test_states_of_purged_owners_are_not_written(tmp_path: Path) -> None:
    harness = eager()
    harness.loop.handle(Purge(1, ["owner"]))
    submit(harness, long_prompt(harness), tmp_path, cache_tags=["owner/1"])
    harness.run()
    assert not list(tmp_path.iterdir())


def test_no_state_is_larger_than_the_room_for_states(tmp_path: Path) -> None:
    harness = eager()
    submit(harness, long_prompt(harness), tmp_path, max_bytes=50)
    harness.run()
    assert not list(tmp_path.iterdir())


def test_the_room_is_shared_by_all_prompts(tmp_path: Path) -> None:
    harness = eager(context_size=8192)
    sizes: dict[str, int] = {}
    for name in "abc":
        values = params(max_tokens=1, cache_prompt=False)
        prompt = [*long_prompt(harness, 640), 10 + ord(name)]
        harness.loop.handle(
            Submit(
                sequence_id=name, prompt=prompt, params=values, checkpoint_folder=str(tmp_path), checkpoint_bytes=2500
            )
        )
    while harness.loop.step():
        sizes = {other.id: other.checkpoint_bytes for other in harness.loop.scheduler.sequences.running} or sizes
        assert sum(sizes.values()) <= 2500
    assert written(harness)


def test_a_full_folder_costs_one_attempt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = eager()
    submit(harness, long_prompt(harness, delay_ms=10), tmp_path)
    tmp_path.chmod(0o500)
    harness.loop._checkpoints._writer.write = lambda folder, snapshot, state: ("", 0)  # type: ignore[method-assign]
    n_saved, save = 0, harness.backend.save

    def counted(slot: int) -> bytes:
        nonlocal n_saved
        n_saved += 1
        return save(slot)

    harness.backend.save = counted  # type: ignore[method-assign]
    harness.run()
    tmp_path.chmod(0o700)
    assert n_saved == 1
    assert len(harness.tokens("a")) == 8


def test_checkpoints_cost_a_small_share_of_the_prefill(tmp_path: Path) -> None:
    harness = eager(batch_size=64)
    save_secs, saves = 0.01, 0
    save = harness.backend.save

    def slow(slot: int) -> bytes:
        nonlocal saves
        saves += 1
        time.sleep(save_secs)
        return save(slot)

    harness.backend.save = slow  # type: ignore[method-assign]
    began = time.monotonic()
    submit(harness, long_prompt(harness, 3000, delay_ms=40), tmp_path)
    harness.step_until_first_token("a")
    assert saves >= 3
    assert (saves - 1) * save_secs <= COST_SHARE * (time.monotonic() - began)


# ---- the next runner ----


@pytest.mark.parametrize("is_cached", [True, False])
def test_the_next_runner_and_the_one_after_it_continue_from_the_file(tmp_path: Path, *, is_cached: bool) -> None:
    prompt = long_prompt(Harness.fake())
    first = eager()
    submit(first, prompt, tmp_path, cache_prompt=is_cached)
    path = until_written(first).path
    n_saved = n_tokens(path)
    for _ in range(2):
        following = Harness.fake()
        submit(following, prompt, tmp_path, state=path, cache_prompt=is_cached)
        following.run()
        assert sum(step.n_prefill for step in following.steps()) == len(prompt) - n_saved
        assert following.tokens("a") == first.run().tokens("a")
        assert Path(path).exists()


def test_a_damaged_or_missing_file_costs_the_tokens_only(tmp_path: Path) -> None:
    prompt = long_prompt(Harness.fake())
    first = eager()
    submit(first, prompt, tmp_path)
    path = Path(until_written(first).path)
    path.write_bytes(path.read_bytes()[:-10])
    for state in (str(path), str(tmp_path / "missing.move")):
        following = Harness.fake()
        submit(following, prompt, tmp_path, state=state)
        assert following.run().tokens("a") == first.run().tokens("a")


def test_a_cancel_after_a_checkpoint(tmp_path: Path) -> None:
    harness = eager()
    submit(harness, long_prompt(harness), tmp_path)
    until_written(harness)
    harness.loop.handle(Cancel("a"))
    assert harness.ended("a").reason == "cancelled"
    assert not harness.loop.step()


@pytest.mark.real_model
def test_the_real_model_continues_to_the_last_bit(
    real_config: EngineConfig, real_backend: LlamaBackend, tmp_path: Path
) -> None:
    config = msgspec.structs.replace(real_config, checkpoint_secs=0.001)
    harness = Harness(real_backend, config)
    prompt = long_prompt(harness, 450)  # within the window: beyond it, restored cells may round differently
    submit(harness, prompt, tmp_path, cache_prompt=False)
    frame = until_written(harness)
    harness.run()
    following = Harness(real_backend, config)
    submit(following, prompt, tmp_path, state=frame.path, cache_prompt=False)
    following.run()
    n_saved = n_tokens(frame.path)
    assert n_saved >= 256
    assert sum(step.n_prefill for step in following.steps()) == len(prompt) - n_saved
    assert following.tokens("a") == harness.tokens("a")
