"""Fingerprint of model file, settings and library: KV states move only between runners with the same one.

Knows nothing of states themselves.
"""

from hashlib import blake2b
from importlib.metadata import version

from inference.engine.config import BackendKind, EngineConfig

# Bytes read from the model file: its header, and samples of its weights.
HEAD_BYTES = 4 << 20
SAMPLE_BYTES = 64 << 10
N_SAMPLES = 32


def state_fingerprint(config: EngineConfig) -> str:
    """Return a hexadecimal digest; raises ``OSError`` when the model file cannot be read.

    Threads, batch and context sizes are left out: they do not change the meaning of a state.
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
        size = config.model_path.stat().st_size
        digest.update(b"%d" % size)
        with config.model_path.open("rb") as file:
            digest.update(file.read(HEAD_BYTES))
            # Samples: hashing a whole large file would take seconds at every start.
            for number in range(N_SAMPLES):
                file.seek(size * number // N_SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
