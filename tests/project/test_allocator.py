"""Memory that a burst of large bodies took is the system's again, in a process of its own."""

import subprocess
import sys

import pytest

BURST = """
import os, psutil, sys
from concurrent.futures import ThreadPoolExecutor
from gemma_project.allocator import return_freed_memory
if sys.argv[1] == "set":
    return_freed_memory()
size = lambda: psutil.Process().memory_info().rss >> 20
kept = []
def work(number):
    bodies = []
    for _ in range(4):
        bodies.append(b"x" * 1_000_000)
        kept.append(bytearray(700))  # what follows a body in its arena keeps the arena's end where it is
before = size()
b"x" * 30_000_000
with ThreadPoolExecutor(16) as pool:
    list(pool.map(work, range(64)))
print(size() - before)
"""


def grown_mb(argument: str) -> int:
    command = [sys.executable, "-c", BURST, argument]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of glibc")
def test_a_burst_of_large_bodies_leaves_nothing() -> None:
    assert grown_mb("set") <= 3
