"""The Valkey child: private, reachable by its socket alone, and durable across a kill."""

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from gemma_project.broker_url import socket_url
from gemma_project.supervisor import valkey
from gemma_project.supervisor.tether import tethered
from tests.live_stack import wait_until


class Server:
    """A Valkey of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.socket_path = directory / "run" / "valkey.sock"
        self.data_dir = directory / "valkey"
        valkey.prepare_directories(self.socket_path, self.data_dir)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(tethered(valkey.command(self.socket_path, self.data_dir)))
        wait_until(lambda: valkey.answers(self.socket_path), timeout_secs=10, what="Valkey answers")

    @property
    def client(self) -> "redis.Redis[str]":
        return redis.Redis.from_url(socket_url(self.socket_path), decode_responses=True)

    def end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.end(signal.SIGKILL)


def test_nobody_else_can_reach_it(server: Server) -> None:
    assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_path.stat().st_mode) == 0o700
    assert psutil.Process(server.process.pid).net_connections(kind="inet") == []


def test_its_title_says_what_it_is(server: Server) -> None:
    # Behind the title the rest of the overwritten memory follows.
    words = " ".join(psutil.Process(server.process.pid).cmdline()).split()
    assert words[:2] == ["gemma-valkey", str(server.socket_path)]


def test_a_full_store_refuses_instead_of_forgetting(server: Server) -> None:
    assert server.client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    server.client.set("kept", "yes")
    server.client.config_set("maxmemory", "1mb")
    with pytest.raises(redis.exceptions.ResponseError, match="maxmemory"):
        server.client.set("big", "x" * 2_000_000)
    assert server.client.get("kept") == "yes"


def test_what_was_written_a_second_ago_survives_a_kill(server: Server) -> None:
    for index in range(100):
        server.client.xadd("log", {"token": index}, id=f"{index + 1}-0")
    wait_until(
        lambda: server.client.info("persistence")["aof_pending_bio_fsync"] == 0, timeout_secs=5, what="it is on disk"
    )
    server.end(signal.SIGKILL)
    server.start()
    assert server.client.xlen("log") == 100


def test_a_socket_file_left_by_a_killed_server_is_no_obstacle(server: Server) -> None:
    server.end(signal.SIGKILL)
    assert server.socket_path.exists()
    assert not valkey.answers(server.socket_path)
    server.start()


def test_a_file_cut_in_the_middle_of_a_write_is_read_up_to_there(server: Server) -> None:
    server.client.set("kept", "yes")
    server.end(signal.SIGTERM)
    (log,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha")
    server.start()
    assert server.client.get("kept") == "yes"


def test_no_socket_no_answer(tmp_path: Path) -> None:
    assert not valkey.answers(tmp_path / "nothing.sock")


def test_a_directory_with_open_doors_is_closed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o777)
    run.chmod(0o777)
    valkey.prepare_directories(run / "valkey.sock", tmp_path / "valkey")
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def test_a_link_laid_in_the_socket_directorys_place_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="not a directory of our own"):
        valkey.prepare_directories(tmp_path / "run" / "valkey.sock", tmp_path / "valkey")


@pytest.mark.skipif(os.getuid() != 0, reason="giving a directory away needs root")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.chown(run, 12345, 12345)
    with pytest.raises(PermissionError, match="not a directory of our own"):
        valkey.prepare_directories(run / "valkey.sock", tmp_path / "valkey")
