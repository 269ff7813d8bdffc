"""The README's program that shares the GPU, as printed there, with the four names that it leaves to its reader.

python -m tests.neighbours.readme_program FOLDER     until FOLDER/stop exists; prints what happens, with the time
"""

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
UNIT_SECS = 0.02


def printed_program() -> str:
    """Return the one block of the README that imports the tenant library."""
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    [program] = [block for block in blocks if "from inference.gpu.tenant import" in block]
    return str(program)


def main(folder: Path) -> None:
    loaded, stop = folder / "loaded", folder / "stop"

    def note(event: str) -> None:
        print(f"{time.time():.3f} {event}", flush=True)  # noqa: T201  read by the test

    def load_model() -> None:
        loaded.touch()
        note("load")

    def unload_model() -> None:
        loaded.unlink()
        note("unload")

    def chunks() -> Iterator[int]:
        number = 0
        while not stop.exists():
            yield number
            number += 1
        note(f"units {number}")

    def transcribe(chunk: int) -> None:
        if not loaded.exists():
            raise RuntimeError("computed without a model")
        time.sleep(UNIT_SECS)

    names = {"load_model": load_model, "unload_model": unload_model, "transcribe": transcribe, "chunks": chunks()}
    exec(compile(printed_program(), "README.md", "exec"), names)  # noqa: S102  the text under test


if __name__ == "__main__":
    main(Path(sys.argv[1]))
