"""Mutate model files and saved states, guided by the readers' coverage: ``python -m tests.parsers.fuzz_files SECS``.

Runs in .venv-fuzz, without Django. Each input is given to one reader, with the magic and the checksums of a writer who
knows the format, or as it is. Any error but the declared ones ends the run with a file that repeats it.
"""

import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import msgspec

with atheris.instrument_imports():
    from inference.engine.backends.gguf_header import check_model_file
    from inference.engine.errors import ModelFileError
    from inference.engine.kv_cache import snapshot_files, state_files

MAX_INPUT_BYTES = 4096
SETTINGS = "these"
STATE = b"state"
KEY_VALUES = b"".join(
    struct.pack("<Q", len(name)) + name + value
    for name, value in (
        (b"general.architecture", struct.pack("<IQ", 8, 1) + b"a"),
        (b"general.alignment", struct.pack("<II", 4, 64)),
        (b"tokenizer.ggml.tokens", struct.pack("<IIQQ", 9, 8, 2, 6) + b"<0x00>" + struct.pack("<Q", 1) + b"a"),
        (b"scores", struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3)),
    )
)
TENSOR = struct.pack("<Q", 1) + b"w" + struct.pack("<IQQIQ", 2, 32, 2, 0, 0)
MODEL = b"GGUF" + struct.pack("<IQQ", 3, 1, 4) + KEY_VALUES + TENSOR + bytes(512)

folder = Path(tempfile.mkdtemp(prefix="gemma-fuzz-", dir="/dev/shm"))
path = folder / "0123456789abcdef.kv"


def read_model(data: bytes) -> None:
    path.write_bytes(data)
    try:
        header = check_model_file(path)
    except ModelFileError:
        return
    assert header.data_end <= len(data)


def read_model_header(data: bytes) -> None:
    read_model(b"GGUF\x03\0\0\0" + data)


def read_saved_state(data: bytes) -> None:
    path.write_bytes(data)
    for read in (snapshot_files.read_snapshot, snapshot_files.read_state):
        try:
            read(path, SETTINGS)
        except (ValueError, OSError):
            continue


def read_saved_head(head: bytes) -> None:
    checksum = snapshot_files._checksum(head)
    read_saved_state(snapshot_files.FRONT.pack(snapshot_files.MAGIC, len(head), checksum) + head + STATE)


def read_moving_state(data: bytes) -> None:
    for maps in (False, True):
        path.write_bytes(data)
        try:
            header, state = state_files.consume_state(path, SETTINGS, maps=maps)
        except (ValueError, OSError):
            continue
        assert len(state) == header.n_bytes
        assert len(header.tokens) * 4 == len(header.token_bytes)


def read_moving_head(head: bytes) -> None:
    read_moving_state(state_files.FRONT.pack(state_files.MAGIC, len(head)) + head + STATE)


READERS: list[Callable[[bytes], None]] = [read_model, read_model_header, read_saved_state, read_saved_head]
READERS += [read_moving_state, read_moving_head]


def one_input(data: bytes) -> None:
    if data:
        READERS[data[0] % len(READERS)](data[1:])


def write_seeds(corpus: Path) -> None:
    """Write one sound input for each reader."""
    head = snapshot_files.SnapshotHead(SETTINGS, bytes(40), 0, len(STATE), snapshot_files._checksum(STATE), ["a"], "u")
    packed = msgspec.msgpack.encode(head)
    saved = snapshot_files.FRONT.pack(snapshot_files.MAGIC, len(packed), snapshot_files._checksum(packed))
    moving = state_files.StateHeader(SETTINGS, bytes(40), 0, ephemeral=False, n_bytes=len(STATE), tags=["a"])
    packed_moving = msgspec.msgpack.encode(moving)
    front = state_files.FRONT.pack(state_files.MAGIC, len(packed_moving))
    seeds = [MODEL, MODEL[8:], saved + packed + STATE, packed, front + packed_moving + STATE, packed_moving]
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(bytes([number]) + seed)


def main(secs: str) -> None:
    write_seeds(folder / "corpus")
    options = [
        f"-max_total_time={secs}",
        f"-max_len={MAX_INPUT_BYTES}",
        "-rss_limit_mb=2048",
        "-timeout=10",
        "-artifact_prefix=var/",
    ]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", str(folder / "corpus")], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
