"""llama.cpp's C interface, imported at its first use: processes and tests without a model need no build of it."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name.startswith("__"):
        raise AttributeError(name)
    value = getattr(import_module("llama_cpp.llama_cpp"), name)
    globals()[name] = value  # the next access does not come here
    return value


def library_folder() -> Path:
    """Return the folder of the build's shared libraries, without loading them. Raises ImportError without a build."""
    spec = find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise ImportError("llama-cpp-python is not installed")
    return Path(spec.origin).parent / "lib"
