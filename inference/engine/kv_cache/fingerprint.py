"""A fingerprint of all that decides whether a saved state can be used: the model file, the settings, the library.

Knows nothing of states; two runners with the same fingerprint can go on with each other's.
"""

from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path

from inference.engine.config import BackendKind, EngineConfig

# Bytes read from the model file: its beginning, which describes it, and samples of its weights.
HEAD_BYTES = 4 << 20
SAMPLE_BYTES = 64 << 10
N_SAMPLES = 32


def state_fingerprint(config: EngineConfig) -> str:
    """Hexadecimal; raises ``OSError`` when the model file cannot be read.

    Threads, batch and context sizes are not in it: they do not change what a state means.
    """
    settings = (
        config.backend,
        version("llama-cpp-python"),
        config.kv_type_k,
        config.kv_type_v,
        config.flash_attention,
        "window only",  # swa_full is off
    )
    digest = blake2b(repr(settings).encode(), digest_size=16)
    if config.backend is not BackendKind.FAKE:
        _add_file(digest, config.model_path)
    return digest.hexdigest()


def _add_file(digest: blake2b, path: Path) -> None:
    """Size, beginning and samples: the whole of a large file would take seconds at every start."""
    size = path.stat().st_size
    digest.update(b"%d" % size)
    with path.open("rb") as file:
        digest.update(file.read(HEAD_BYTES))
        for number in range(N_SAMPLES):
            file.seek(size * number // N_SAMPLES)
            digest.update(file.read(SAMPLE_BYTES))
