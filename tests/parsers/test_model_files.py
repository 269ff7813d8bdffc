"""Readers of model files and saved states: a header or a refusal, whatever the bytes."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.backends.gguf_header import check_model_file
from inference.engine.errors import ModelFileError
from inference.engine.kv_cache import snapshot_files, state_files
from inference.engine.kv_cache.disk_store import DiskStore
from inference.engine.kv_cache.snapshot_files import _checksum
from tests.engine.test_gguf_header import ARRAY, STRING, UINT32, gguf, key_value, tensor, text
from tests.faults.fuzzing import VALUES
from tests.parsers.drawing import DEEP, drawn, edited

SETTINGS = "these"
TOKENS = np.arange(100, dtype=np.int32).tobytes()
STATE = b"state"
VOCABULARY = key_value(b"tokenizer.ggml.tokens", ARRAY, STRING.to_bytes(4, "little") + (2).to_bytes(8, "little"))
MODELS = [
    gguf(),
    gguf(version=2, tensors=(tensor(), tensor(b"other", (256, 3), kind=12, offset=256)), data=b"\0" * 2048),
    gguf(
        keys=(
            key_value(b"general.architecture", STRING, text(b"gemma3")),
            key_value(b"general.alignment", UINT32, (64).to_bytes(4, "little")),
            key_value(b"gemma3.context_length", UINT32, (8192).to_bytes(4, "little")),
            VOCABULARY + text(b"<0x00>") + text(b"a"),
            key_value(b"tokenizer.ggml.model", STRING, text(b"llama")),
        ),
        data=b"\0" * 512,
    ),
]
DEEP_MESSAGE_PACK = [b"\x91" * 100_000, b"\x81\xa1x" * 50_000]


@drawn
@given(edited(MODELS))
def test_headers_of_models(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.gguf"
    path.write_bytes(data)
    try:
        header = check_model_file(path)
    except ModelFileError as error:
        assert str(path) in str(error)
        assert len(str(error)) < 70_000
    else:
        assert 0 < header.data_start <= header.data_end <= len(data)


def message_pack(fields: Any) -> bytes:  # noqa: ANN401
    """Encode what there is a form for."""
    try:
        return msgspec.msgpack.encode(fields)
    except (OverflowError, UnicodeEncodeError):
        return b"\xc1"


HEADS: dict[str, st.SearchStrategy[Any]] = {
    "settings": st.just(SETTINGS),
    "tokens": st.just(TOKENS) | st.binary(max_size=9),
    "first_position": st.just(0),
    "n_bytes": st.just(len(STATE)),
    "checksum": st.just(_checksum(STATE)),
    "tags": st.just(["a/0"]),
    "caller": st.just("user:1"),
}
heads = st.fixed_dictionaries({name: likely | likely | VALUES for name, likely in HEADS.items()}).map(message_pack)
lists = st.tuples(
    st.just(SETTINGS), HEADS["tokens"], st.integers(-1, 5), st.booleans(), st.integers(-1, 9), HEADS["tags"] | VALUES
).map(message_pack)
noise = st.sampled_from([*DEEP_MESSAGE_PACK, *DEEP, b"\x87\xa1x" + b"\x91" * 100_000]) | st.binary(max_size=30)


@drawn
@given(heads | noise | heads.flatmap(lambda head: edited([head])), st.booleans())
def test_saved_states(tmp_path_factory: pytest.TempPathFactory, head: bytes, is_right: bool) -> None:
    """The checksums are right, as a hostile writer makes them, or the file ends early."""
    folder = tmp_path_factory.mktemp("states")
    path = folder / "0123456789abcdef.kv"
    data = snapshot_files.FRONT.pack(snapshot_files.MAGIC, len(head), _checksum(head)) + head + STATE
    path.write_bytes(data if is_right else data[: len(head)])
    for read in (snapshot_files.read_state, snapshot_files.read_snapshot):
        try:
            read(path, SETTINGS)
        except (ValueError, OSError) as error:
            assert str(error)
    assert isinstance(tags_or_none(path), list | None)
    assert DiskStore(folder, 1 << 20, SETTINGS).read_index() == []


def tags_or_none(path: Path) -> list[str] | None:
    try:
        return snapshot_files.tags_of(path)
    except ValueError:
        return None


@drawn
@given(lists | noise | lists.flatmap(lambda head: edited([head])), st.booleans(), st.binary(max_size=6))
def test_moving_states(tmp_path_factory: pytest.TempPathFactory, head: bytes, maps: bool, front: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.move"
    whole = state_files.FRONT.pack(state_files.MAGIC, len(head)) + head + STATE
    path.write_bytes(front + whole[len(front) :])
    try:
        header, state = state_files.consume_state(path, SETTINGS, maps=maps)
    except (ValueError, OSError) as error:
        assert str(error)
    else:
        assert len(state) == header.n_bytes
        assert len(header.tokens) * 4 == len(header.token_bytes)
    assert not path.exists()
