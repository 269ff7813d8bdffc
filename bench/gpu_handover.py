"""``python -m bench.gpu_handover``: cost of a hand-over, on the machine's GPU or simulated.

With a GPU it builds llama-cpp-python for CUDA first. Without one a second runner on the CPU takes the GPU's place,
and every table states it: times of moves and yields are real, speeds "on the GPU" are those of a shared CPU.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.__main__ import default_model
from bench.random_gguf import Shape, write_random

PROJECT = Path(__file__).resolve().parent.parent


def has_card() -> bool:
    return shutil.which("nvidia-smi") is not None and subprocess.run(["nvidia-smi", "-L"], check=False).returncode == 0


def build_for_card() -> None:
    """In a process of its own, before anything of llama.cpp is loaded."""
    print("Building llama-cpp-python for CUDA", flush=True)
    environment = os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", "-DGGML_CUDA=on")}
    subprocess.run([sys.executable, str(PROJECT / "tools" / "install_llama.py")], env=environment, check=True)


def models_of(names: list[str], folder: Path) -> Iterator[tuple[str, Path]]:
    for name in names:
        if name == "270m":
            yield "Gemma 3 270M", default_model()
        else:
            target = folder / "random-4b.gguf"
            write_random(default_model(), target, Shape())
            yield "Gemma 3 4B's shape with random weights", target


def measure(title: str, model: Path, folder: Path, arguments: argparse.Namespace, *, is_simulated: bool) -> None:
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "gemma_project.settings",
        "GEMMA_DATA_DIR": str(folder / "data"),
        "GEMMA_MODEL_PATH": str(model),
        "GEMMA_CONTEXT_SIZE": str(2 * arguments.chat_tokens),
        "GEMMA_CACHE_DISK_MB": "0",  # so that nothing comes from there
        "LOG_LEVEL": "error",
    }
    numbers = [str(int(is_simulated)), str(arguments.chat_tokens), str(arguments.tokens)]
    command = [sys.executable, "-m", "bench.handover_measures", title, *numbers]
    subprocess.run(command, env=environment, cwd=PROJECT, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=("270m", "4b"), default=["270m", "4b"])
    parser.add_argument("--simulated", action="store_true", help="also on a machine with a card")
    parser.add_argument("--chat-tokens", type=int, default=8000)
    parser.add_argument("--tokens", type=int, default=48, help="answered on each device")
    arguments = parser.parse_args()
    is_simulated = arguments.simulated or not has_card()
    if not is_simulated:
        build_for_card()
    with tempfile.TemporaryDirectory(prefix="gemma-handover-") as made:
        folder = Path(made)
        for title, model in models_of(arguments.models, folder):
            measure(title, model, folder, arguments, is_simulated=is_simulated)


if __name__ == "__main__":
    main()
