"""Cost of retrieval in a chat turn, through the whole service: each question with and without memories, in turn.

The model is the scripted one, so that its time does not count; the prefill of the sources is the model's time.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
from tqdm import tqdm

from bench.servers import Running, free_port
from bench.streams import OurService

WARM_UP = 5  # the first search of the process loads the vectors


def added_ms(folder: Path, questions: Sequence[str]) -> list[float]:
    """For each question how much later its first token came with memories than without; ``folder`` holds a database."""
    port = free_port()
    environment = {"GEMMA_DATA_DIR": str(folder), "GEMMA_PORT": str(port), "GEMMA_BACKEND": "fake"}
    command = [sys.executable, "manage.py", "serve"]
    logs = folder / "serve"
    logs.mkdir(exist_ok=True)
    service = Running("ours", command, environment, f"http://127.0.0.1:{port}", logs, OurService)
    service.start()
    try:
        with httpx.Client(base_url=service.url, timeout=60) as client:
            for question in questions[:WARM_UP]:
                first_token_ms(client, question, use_rag=True)
            return [
                first_token_ms(client, question, use_rag=True) - first_token_ms(client, question, use_rag=False)
                for question in tqdm(questions, desc="turns", leave=False, mininterval=2)
            ]
    finally:
        service.stop()


def first_token_ms(client: httpx.Client, question: str, *, use_rag: bool) -> float:
    body = {"messages": [{"role": "user", "content": question}], "use_rag": use_rag, "max_tokens": 2}
    started, first, last = time.monotonic(), 0.0, {}
    with client.stream("POST", "/chat/stream", json=body) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line[6:])
                first = first or (time.monotonic() if last["token"] else 0.0)
    # A turn without its memories would make the figure look good.
    if "error" in last or bool(last.get("sources")) is not use_rag:
        raise RuntimeError(f"{question!r} with use_rag={use_rag} ended with {last}")
    return (first - started) * 1000
