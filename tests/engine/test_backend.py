"""llama.cpp behind the backend's contract: batches, memory, errors, settings. And the frames around it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.backends import llama_cpp_api as lib
from inference.engine.backends import llama_library
from inference.engine.backends.backend import Backend, Slice
from inference.engine.backends.fake_backend import FakeBackend
from inference.engine.backends.llama import LlamaModel
from inference.engine.backends.llama_backend import LlamaBackend
from inference.engine.config import MAX_DEVICES, N_IDLE_SLOTS, BackendKind, Device, EngineConfig, FlashAttention, KvType
from inference.engine.errors import BackendError, ModelFileError
from inference.engine.process.runner import open_backend
from inference.engine.protocol.frames import (
    Cancel,
    Emission,
    Ended,
    Fatal,
    Frame,
    PrefillProgress,
    Ready,
    Rejected,
    Start,
    Step,
    Stop,
    Submit,
    decode_from_runner,
    decode_start,
    decode_to_runner,
    encode,
)
from tests.engine.harness import fake_config, params

TOKENS = [2, 669, 4320, 8426, 33214, 36789]


@pytest.fixture(params=["fake", pytest.param("llama", marks=pytest.mark.real_model)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "fake":
        return FakeBackend(n_cells=4096, n_slots=8, batch_size=256)
    found: Backend = request.getfixturevalue("real_backend")
    return found


def tokens_for(backend: Backend) -> list[int]:
    return [token % backend.vocabulary.n_tokens for token in TOKENS]


def test_logits_come_for_the_slices_that_want_them_in_their_order(backend: Backend) -> None:
    tokens = tokens_for(backend)
    alone = []
    for slot in (0, 1):
        logits = backend.decode([Slice(slot, 0, tokens[: 3 + slot], True)])
        assert logits is not None
        alone.append(int(logits[0].argmax()))
        backend.remove(slot)
    together = backend.decode(
        [Slice(1, 0, tokens[:4], True), Slice(2, 0, tokens[:2], False), Slice(0, 0, tokens[:3], True)]
    )
    assert together is not None
    assert [row.shape for row in together] == [(backend.vocabulary.n_tokens,)] * 2
    assert [int(row.argmax()) for row in together] == alone[::-1]


def test_no_logits_are_wanted(backend: Backend) -> None:
    assert backend.decode([Slice(0, 0, tokens_for(backend), False)]) == []


def test_logits_may_be_changed(backend: Backend) -> None:
    logits = backend.decode([Slice(0, 0, tokens_for(backend), True)])
    assert logits is not None
    logits[0][7] = 12345.0
    assert int(logits[0].argmax()) == 7


def test_positions_are_counted(backend: Backend) -> None:
    tokens = tokens_for(backend)
    assert backend.n_positions(3) == 0
    backend.decode([Slice(3, 0, tokens, False)])
    assert (backend.first_position(3), backend.n_positions(3)) == (0, 6)
    backend.trim(3, 4)
    assert backend.n_positions(3) == 4
    backend.remove(3)
    assert backend.n_positions(3) == 0


def test_a_position_that_does_not_follow_is_an_error(backend: Backend) -> None:
    backend.decode([Slice(0, 0, tokens_for(backend), False)])
    with pytest.raises(BackendError):
        backend.decode([Slice(0, 50, [5], True)])


def test_slots_do_not_see_each_other(backend: Backend) -> None:
    tokens = tokens_for(backend)
    first = backend.decode([Slice(0, 0, tokens, True)])
    assert first is not None
    expected = int(first[0].argmax())
    backend.decode([Slice(1, 0, tokens[::-1], True)])
    second = backend.decode([Slice(2, 0, tokens, True)])
    assert second is not None
    assert int(second[0].argmax()) == expected


@pytest.mark.real_model
def test_when_llama_cpp_has_no_room_nothing_changes(model_path: Path) -> None:
    backend = LlamaBackend(EngineConfig(model_path=model_path, context_size=256, batch_size=128, threads=1), n_slots=3)
    try:
        for slot in (0, 1):
            assert backend.decode([Slice(slot, 0, [5] * 120, False)]) == []
        assert backend.decode([Slice(2, 0, [5] * 100, False)]) is None
        assert [backend.n_positions(slot) for slot in (0, 1, 2)] == [120, 120, 0]
        backend.remove(0)
        assert backend.decode([Slice(2, 0, [5] * 100, False)]) == []
    finally:
        backend.close()


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("changes", "n_cells"),
    [
        ({"kv_type_k": KvType.Q8_0, "kv_type_v": KvType.Q8_0, "flash_attention": FlashAttention.ON}, 300),
        ({"context_size": 1_000_000}, 32_768),
        ({"mlock": True}, 300),
        ({"device": Device.CPU, "gpu_layers": 25}, 300),
        ({"batch_size": 1, "parallel": 3}, 300),
        ({"batch_size": 64, "ubatch_size": 16}, 300),
        ({"tensor_split": (3.0, 1.0), "main_gpu": 1}, 300),
    ],
)
def test_settings_reach_llama_cpp(model_path: Path, changes: dict[str, object], n_cells: int) -> None:
    config = EngineConfig(**{"model_path": model_path, "context_size": 300, "threads": 1, **changes})  # type: ignore[arg-type]
    backend = LlamaBackend(config, n_slots=6)
    try:
        assert backend.n_cells == n_cells
        logits = backend.decode([Slice(0, 0, [2], True)])
        assert logits is not None
        assert np.isfinite(logits[0]).all()
    finally:
        backend.close()
        backend.close()


@pytest.mark.real_model
def test_only_warnings_of_llama_cpp_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="inference.engine.backends.llama_library"):
        for level in (1, 2, 3, 4, 5):
            llama_library._forward(level, b"message %d\n" % level, None)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "llama.cpp message=message 3"),
        ("ERROR", "llama.cpp message=message 4"),
    ]


@pytest.mark.real_model
def test_what_is_said_at_every_load_of_every_gemma_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="inference.engine.backends.llama_library"):
        llama_library._forward(3, b"load: control-looking token: 212 '</s>' was not control-type\n", None)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_batch_has_room_for_every_running_sequence() -> None:
    backend = open_backend(fake_config(batch_size=1, parallel=6))
    assert backend.batch_size == 6
    assert backend.n_slots == 6 + N_IDLE_SLOTS


def test_ended_sequences_have_few_slots_only_where_each_is_dear_and_ram_takes_them() -> None:
    n_slots = {
        fake_config(parallel=6).n_slots: "on a CPU attention passes over the cells of all",
        fake_config(parallel=6, device=Device.GPU).n_slots: "a card computes all of it anyway",
        fake_config(parallel=6, cache_ram_mb=0).n_slots: "there is no other place but the disk",
    }
    assert list(n_slots) == [6 + N_IDLE_SLOTS, 12]


# ---- configuration and frames ----


@pytest.mark.parametrize("name", ["context_size", "batch_size", "parallel", "threads"])
def test_a_number_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        fake_config(**{name: 0})


def test_a_quantised_v_cache_needs_flash_attention() -> None:
    with pytest.raises(ValueError, match="kv_type_v=q8_0 needs flash attention"):
        fake_config(kv_type_v=KvType.Q8_0, flash_attention=FlashAttention.OFF)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ubatch_size": 600}, "ubatch_size must be from 1 to batch_size=512, got 600"),
        ({"ubatch_size": 0}, "ubatch_size"),
        ({"main_gpu": 2, "tensor_split": (1.0, 1.0)}, r"main_gpu=2 is not one of the GPUs of tensor_split"),
        ({"main_gpu": -1}, "main_gpu=-1"),
        ({"tensor_split": (1.0,) * 17}, "tensor_split"),
        ({"tensor_split": (-1.0, 2.0)}, "tensor_split"),
    ],
)
def test_cards_and_passes_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fake_config(**{"batch_size": 512, **changes})


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("changes", "mode", "shares"),
    [
        ({"main_gpu": 1}, "LLAMA_SPLIT_MODE_NONE", None),
        ({"main_gpu": 1, "tensor_split": (3.0, 1.0)}, "LLAMA_SPLIT_MODE_LAYER", [3.0, 1.0] + [0.0] * 14),
    ],
)
def test_cards_reach_llama_cpp(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], mode: str, shares: list[float] | None
) -> None:
    """Read from llama.cpp's own structure: no machine of these tests has two GPUs."""
    seen: list[tuple[int, int, list[float] | None]] = []

    def load(path: bytes, given: lib.llama_model_params) -> None:
        split = [given.tensor_split[i] for i in range(MAX_DEVICES)] if given.tensor_split else None
        seen.append((given.split_mode, given.main_gpu, split))

    monkeypatch.setattr(lib, "llama_model_load_from_file", load)
    config = fake_config(device=Device.GPU, gpu_layers=25, **changes)
    with pytest.raises(ModelFileError):
        LlamaModel.load(config)
    assert lib.llama_max_devices() == MAX_DEVICES
    assert seen == [(getattr(lib, mode), 1, shares)]


def test_a_runner_on_the_cpu_touches_no_card() -> None:
    assert fake_config(gpu_layers=25).layers_on_gpu == 0
    assert fake_config(gpu_layers=25, device=Device.GPU).layers_on_gpu == 25


@pytest.mark.parametrize(
    "frame",
    [
        Submit(sequence_id="a", prompt=[1, 2], params=params(logit_bias={5: None, 6: 1.5}, stop=["\n"]), emitted=[3]),
        Cancel("a"),
        Stop(save_secs=1.5),
    ],
)
def test_frames_to_a_runner_survive_the_way(frame: Frame) -> None:
    assert decode_to_runner(encode(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        Ready(model_name="m", context_size=1, trained_context=2, gpu_layers=3, load_ms=4.5, warmup_ms=5.5),
        PrefillProgress("a", 1, 2),
        Step(emissions=[Emission("a", 1, 2, "é")], n_prefill=1, n_decode=0, step_ms=1.5),
        Ended(sequence_id="a", reason="stop", text="x", n_kept=3),
        Rejected("a", "code", "message"),
        Fatal("code", "message"),
    ],
)
def test_frames_from_a_runner_survive_the_way(frame: Frame) -> None:
    assert decode_from_runner(encode(frame)) == frame


def test_the_start_carries_the_whole_configuration() -> None:
    config = fake_config(backend=BackendKind.FAKE, flash_attention=FlashAttention.OFF, step_budget_ms=12.5)
    start = Start(config=config, title="gemma-runner cpu", parent_pid=7)
    assert decode_start(encode(start)) == start
    assert isinstance(decode_start(encode(start)).config.model_path, Path)


@given(tokens=st.lists(st.integers(min_value=0, max_value=2**31 - 1), max_size=50))
def test_any_tokens_survive_the_way(tokens: list[int]) -> None:
    frame = Submit(sequence_id="a", prompt=tokens, params=params(), emitted=tokens[::-1])
    assert decode_to_runner(encode(frame)) == frame
