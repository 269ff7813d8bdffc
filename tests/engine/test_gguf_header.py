"""A GGUF header is checked before any native code sees the file."""

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.engine.backends.gguf_header import check_model_file
from inference.engine.backends.vocabulary import open_vocabulary
from inference.engine.config import EngineConfig
from inference.engine.errors import ModelFileError

F32, Q4_K, STRING, ARRAY, UINT32 = 0, 12, 8, 9, 4


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key_value(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes = b"weights", dims: tuple[int, ...] = (32, 2), kind: int = F32, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(
    *,
    keys: tuple[bytes, ...] = (key_value(b"general.name", STRING, text(b"tiny")),),
    tensors: tuple[bytes, ...] = (tensor(),),
    version: int = 3,
    n_tensors: int | None = None,
    n_keys: int | None = None,
    data: bytes = b"\0" * 256,
) -> bytes:
    """A file with the given parts; the counts can lie."""
    counts = (version, len(tensors) if n_tensors is None else n_tensors, len(keys) if n_keys is None else n_keys)
    header = b"GGUF" + struct.pack("<IQQ", *counts) + b"".join(keys) + b"".join(tensors)
    return header + b"\0" * (-len(header) % 32) + data


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


def refusal(tmp_path: Path, content: bytes) -> str:
    path = write(tmp_path, content)
    with pytest.raises(ModelFileError) as caught:
        check_model_file(path)
    assert str(path) in str(caught.value), "the message names the file"
    return str(caught.value)


def test_a_sound_file_passes(tmp_path: Path) -> None:
    header = check_model_file(write(tmp_path, gguf()))
    assert (header.version, header.n_tensors, header.n_keys) == (3, 1, 1)
    assert header.data_end - header.data_start == 256


def test_every_kind_of_metadata_is_walked_over(tmp_path: Path) -> None:
    scalars = tuple(
        key_value(b"k%d" % kind, kind, b"\1" * size)
        for kind, size in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8))
    )
    strings = key_value(b"tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text(b"a") + text(b"bc"))
    numbers = key_value(b"scores", ARRAY, struct.pack("<IQ3f", 6, 3, 1, 2, 3))
    empty = key_value(b"none", ARRAY, struct.pack("<IQ", STRING, 0))
    header = check_model_file(write(tmp_path, gguf(keys=(*scalars, strings, numbers, empty))))
    assert header.n_keys == 14


def test_the_alignment_of_the_file_counts(tmp_path: Path) -> None:
    keys = (key_value(b"general.alignment", UINT32, struct.pack("<I", 4096)),)
    content = gguf(keys=keys)
    content += b"\0" * (4096 + 256 - len(content))
    header = check_model_file(write(tmp_path, content))
    assert header.data_start == 4096
    assert "truncated" in refusal(tmp_path, content[:-1])


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent\.gguf does not exist"):
        check_model_file(tmp_path / "absent.gguf")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not a file"):
        check_model_file(tmp_path)


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, gguf())

    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ModelFileError, match="cannot be read: Permission denied"):
        check_model_file(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>404 not found</html>", "not a GGUF file"),
        (b"GG", "not a GGUF file"),
        (b"GGUF", "truncated"),
        (gguf(version=1), "version 1 is not supported"),
        (gguf(version=0x03000000), "not supported"),  # a big-endian file
        (gguf(tensors=()), "no tensors"),
        (gguf(n_tensors=1 << 60), "1152921504606846976 tensors"),
        (gguf(n_keys=1 << 63), "metadata keys"),
        (gguf(keys=(struct.pack("<Q", 1 << 62) + b"x",)), "a string of 4611686018427387904 bytes"),
        (gguf(keys=(key_value(b"a", ARRAY, struct.pack("<IQ", STRING, (1 << 64) - 1)),)), "array items"),
        (gguf(keys=(key_value(b"a", ARRAY, struct.pack("<IQQ", STRING, 1, 1 << 63)),)), "a string of"),
        (gguf(keys=(key_value(b"a", ARRAY, struct.pack("<IQ", 4, 1 << 26)),)), "truncated"),
        (gguf(keys=(key_value(b"a", ARRAY, struct.pack("<IQ", STRING, 1 << 26)),)), "a string of"),
        (gguf(keys=(key_value(b"a", ARRAY, struct.pack("<IQ", ARRAY, 1)),)), "unknown type 9"),
        (gguf(keys=(key_value(b"a", 77, b""),)), "unknown type 77"),
        (gguf(keys=(key_value(b"general.alignment", UINT32, struct.pack("<I", 0)),)), "alignment of 0"),
        (gguf(keys=(key_value(b"general.alignment", UINT32, struct.pack("<I", 48)),)), "alignment of 48"),
        (gguf(keys=(key_value(b"general.alignment", STRING, text(b"32")),)), "alignment has value type 8"),
        (gguf(tensors=(tensor(dims=(1, 1, 1, 1, 1)),)), "5 dimensions"),
        (gguf(tensors=(tensor(dims=(0,)),)), "0 elements"),
        (gguf(tensors=(tensor(dims=(255,), kind=Q4_K),)), "255 elements"),
        (gguf(tensors=(tensor(offset=7),)), "not a multiple of 32"),
        (gguf(tensors=(tensor(offset=1 << 40),)), "truncated"),
        # The product of these overflows 64 bits to something small.
        (gguf(tensors=(tensor(dims=(1 << 33, 1 << 33)),)), "73786976294838206464 elements"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(tmp_path, content)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=len(gguf()) - 1))
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(ModelFileError):
        check_model_file(write(tmp_path, gguf()[:cut]))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(min_value=4, max_value=len(gguf()) - 257), value=st.integers(min_value=0, max_value=255))
def test_a_changed_byte_never_ends_in_anything_but_an_answer(tmp_path: Path, position: int, value: int) -> None:
    content = bytearray(gguf())
    content[position] = value
    try:
        header = check_model_file(write(tmp_path, bytes(content)))
    except ModelFileError:
        return
    assert header.data_end <= len(content)


@pytest.mark.real_model
@pytest.mark.parametrize("part", [0.0001, 0.01, 0.0258, 0.5, 0.999999])
def test_the_real_model_cut_short_is_refused_before_loading(model_path: Path, tmp_path: Path, part: float) -> None:
    path = tmp_path / "cut.gguf"
    with model_path.open("rb") as source, path.open("wb") as target:
        target.write(source.read(min(64 << 20, int(model_path.stat().st_size * part))))
    with pytest.raises(ModelFileError, match="truncated"):
        open_vocabulary(EngineConfig(model_path=path))


@pytest.mark.real_model
def test_the_real_model_ends_where_its_header_says(model_path: Path) -> None:
    assert check_model_file(model_path).data_end == model_path.stat().st_size


def vocabulary(kind: bytes, tokens: list[bytes]) -> tuple[bytes, ...]:
    strings = b"".join(map(text, tokens))
    return (
        key_value(b"tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, len(tokens)) + strings),
        key_value(b"tokenizer.ggml.model", STRING, text(kind)),
    )


BYTE_TOKENS = [b"<0x%02X>" % byte for byte in range(256)]


@pytest.mark.parametrize("missing", [0x00, 0x41, 0xFF])
def test_a_vocabulary_without_a_token_for_each_byte_is_refused(tmp_path: Path, missing: int) -> None:
    """llama.cpp ends the process at the first text that needs it."""
    tokens = [b"<s>", *BYTE_TOKENS[:missing], *BYTE_TOKENS[missing + 1 :], b"<0x4>", b"<0xZZ>", b"abcdef"]
    assert f"no token for the byte 0x{missing:02X}" in refusal(tmp_path, gguf(keys=vocabulary(b"llama", tokens)))
    check_model_file(write(tmp_path, gguf(keys=vocabulary(b"llama", [*tokens, BYTE_TOKENS[missing]]))))
    check_model_file(write(tmp_path, gguf(keys=vocabulary(b"llama", [*tokens, bytes([missing])]))))
    check_model_file(write(tmp_path, gguf(keys=vocabulary(b"gpt2", tokens))))


@pytest.mark.parametrize(
    "shape", [(1 << 32, 1 << 32), (1 << 62, 2), (1 << 63,), (2**64 - 1,), (1 << 20, 1 << 20, 1 << 20, 1 << 20)]
)
@pytest.mark.parametrize("kind", [F32, 31, 200])
def test_sizes_that_overflow_native_readers_are_refused(tmp_path: Path, shape: tuple[int, ...], kind: int) -> None:
    assert refusal(tmp_path, gguf(tensors=(tensor(dims=shape, kind=kind),)))


def test_a_type_that_no_table_has_is_refused(tmp_path: Path) -> None:
    assert "of type 2147483648" in refusal(tmp_path, gguf(tensors=(tensor(kind=1 << 31),)))
