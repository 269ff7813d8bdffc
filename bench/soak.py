"""``python -m bench.soak``: mixed traffic under random kills for some minutes; counts lost, doubled and leaked items.

The whole service as `serve` starts it, its broker behind a proxy, scripted answers. The
same seed asks and breaks the same things; how they fall together, the machine decides.
"""

import argparse
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from tests.faults.breaking import FaultStack
from tests.faults.history import ENDED, History, Stored, check, watch
from tests.faults.nemesis import Nemesis, Surroundings
from tests.faults.traffic import TrafficClient
from tests.live_stack import wait_until

CLAIM_TTL_SECS = 4.0
LOG_TTL_SECS = 20
LONGEST_TTL_SECS = 120
SETTLE_SECS = 60.0
SAMPLE_SECS = 5.0
# Keys that are always in Redis: the worker's report, the probe's mark, and Celery's own.
STANDING_KEYS = ("gemma:worker", "gemma:probe", "_kombu", "unacked", "gpu", "chat")
TITLES = ("gemma-runner", "gemma-web", "gemma-worker")
ENVIRONMENT = {
    "CLAIM_TTL_SECS": str(CLAIM_TTL_SECS),
    "HEARTBEAT_SECS": "0.5",
    "TOKEN_LOG_TTL_SECS": str(LOG_TTL_SECS),
    "STREAM_GRACE_SECS": "1",
    "GEMMA_CONTEXT_SIZE": "16384",
    "QUEUE_MAX_PER_CALLER": "250",
    "JSON_PATIENCE_SECS": "60",
}


class Sampler:
    """Samples memory and open files of each process every few seconds; a restarted process is a new one."""

    def __init__(self, stack: FaultStack) -> None:
        self.samples: dict[tuple[str, int], list[tuple[float, int]]] = {}  # (title, pid) -> (MB, open files)
        self._stack = stack

    def run(self, until: threading.Event) -> None:
        while not until.wait(SAMPLE_SECS):
            for pid, words in self._stack.titles().items():
                title = words.split(" ")[0]
                if title in TITLES:
                    self._sample(title, pid)

    def _sample(self, title: str, pid: int) -> None:
        try:
            process = psutil.Process(pid)
            sample = (process.memory_info().rss / 1e6, process.num_fds())
        except psutil.NoSuchProcess:
            return  # killed a moment ago
        self.samples.setdefault((title, pid), []).append(sample)

    def summary(self) -> dict[str, dict[str, float]]:
        """Return per part the number of processes, the most memory, and the growth of the process that ran longest,
        after its first minute."""
        by_title: dict[str, dict[str, float]] = {}
        for title in TITLES:
            runs = [samples for (name, _), samples in self.samples.items() if name == title]
            if runs:
                longest = max(runs, key=len)
                settled = longest[int(60 / SAMPLE_SECS) :] or longest
                by_title[title] = {
                    "lives": len(runs),
                    "most_mb": round(max(mb for samples in runs for mb, _ in samples), 1),
                    "longest_life_s": len(longest) * SAMPLE_SECS,
                    "grew_mb": round(settled[-1][0] - settled[0][0], 1),
                    "most_files": max(files for samples in runs for _, files in samples),
                }
        return by_title


def leaks(around: Surroundings) -> list[str]:
    """Return the processes, keys and files that are left over after the time to live of the token logs."""
    stack = around.stack
    leftovers = [f"process {words}" for words in _strays(stack)]
    client = around.broker.client()
    time.sleep(LOG_TTL_SECS + 2)
    left = {key: client.ttl(key) for key in client.scan_iter() if not key.startswith(STANDING_KEYS)}
    # Keys of an ended answer expire within two minutes; -1 is a key without expiry.
    leftovers += [f"key {key}, {secs} s" for key, secs in left.items() if not 0 <= secs <= LONGEST_TTL_SECS]
    client.close()
    names = sorted(path.name for path in (stack.data_dir / "workers").iterdir())
    if len(names) != 1:
        leftovers.append(f"files of workers: {names}")
    return leftovers


def _strays(stack: FaultStack) -> list[str]:
    """Return the processes of this service without a supervisor, and the kinds that run more than once."""
    ours = {stack.pid, *stack.titles()}
    strays = [
        f"{process.pid} {' '.join(process.cmdline())}"
        for process in psutil.process_iter()
        if process.pid not in ours and _works_in(process, stack.data_dir)
    ]
    kinds = Counter(words.split(" ")[0] for words in stack.titles().values())
    return strays + [f"{title} x {kinds[title]}" for title in TITLES if kinds[title] != 1]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("GEMMA_DATA_DIR") == str(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def soak(*, minutes: float, seed: int, n_clients: int) -> dict[str, Any]:
    """Run it; the report has ``problems`` and ``leaked``, which should be empty."""
    around, history, until = Surroundings(**ENVIRONMENT), History(), threading.Event()
    try:
        stack = around.start()
        watch(stack.database)
        sampler = Sampler(stack)
        clients = [TrafficClient(number, stack.url, history, seed=seed) for number in range(n_clients)]
        loops = [*(client.run for client in clients), sampler.run]
        threads = [threading.Thread(target=loop, args=(until,)) for loop in loops]
        for thread in threads:
            thread.start()
        _break(Nemesis(around, history, seed=seed, claim_ttl_secs=CLAIM_TTL_SECS), minutes, history)
        until.set()
        for thread in threads:
            thread.join(SETTLE_SECS * 3)
        if any(thread.is_alive() for thread in threads):
            raise RuntimeError("a client was still waiting for its answers after the faults had ended")
        wait_until(
            lambda: all(row.status in ENDED for row in stack.rows()),
            timeout_secs=SETTLE_SECS,
            what="everything that was accepted has ended",
        )
        problems = check(history, Stored.read(stack.rows(), stack.database))
        return {
            "minutes": minutes,
            "seed": seed,
            "requests": len(history.operations),
            "answered": history.counts(),
            "faults": dict(Counter(history.faults)),
            "lost": [each for each in problems if "lost" in each or "still" in each],
            "doubled": [each for each in problems if "generations" in each or "ended" in each],
            "problems": problems,
            "leaked": leaks(around),
            "processes": sampler.summary(),
        }
    finally:
        until.set()
        around.clean_up()


def _break(nemesis: Nemesis, minutes: float, history: History) -> None:
    deadline = time.monotonic() + minutes * 60
    with tqdm(total=round(minutes * 60), unit="s", disable=None) as bar:
        while (left := deadline - time.monotonic()) > 0:
            nemesis.run(min(left, SAMPLE_SECS))
            bar.update(round(minutes * 60 - max(0.0, deadline - time.monotonic())) - bar.n)
            bar.set_postfix(requests=len(history.operations), faults=len(history.faults))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--out", type=Path, help="write the report there as JSON too")
    arguments = parser.parse_args()
    report = soak(minutes=arguments.minutes, seed=arguments.seed, n_clients=arguments.clients)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    n_lost, n_doubled, n_leaked = (len(report[name]) for name in ("lost", "doubled", "leaked"))
    n_faults = sum(report["faults"].values())
    print(f"requests {report['requests']}, faults {n_faults}, lost {n_lost}, doubled {n_doubled}, leaked {n_leaked}")
    return 1 if report["problems"] or report["leaked"] else 0


if __name__ == "__main__":
    sys.exit(main())
