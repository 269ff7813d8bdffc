"""`ask` against a running service: its output, and its exit status."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.driver import Driver, finished, interrupt
from tests.live_stack import PROJECT, LiveStack, free_port, wait_until


def ask(driver: Driver, prompt: str, *options: str, stdin: str | None = None) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    process = driver.start("ask", prompt, "--owner", driver.owner, *options, stdin=subprocess.PIPE)
    out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


def test_the_answer_is_on_stdout_and_nothing_else(driver: Driver) -> None:
    assert ask(driver, "[[say: Grüße 👋🏽]]") == (0, "Grüße 👋🏽\n", "")


def test_a_prompt_from_standard_input(driver: Driver) -> None:
    status, out, _ = ask(driver, "-", stdin="first\nsecond\n")
    assert (status, out) == (0, "You said: second\n")


def test_continue_asks_on_in_the_last_conversation(driver: Driver) -> None:
    assert ask(driver, "one", "--continue")[0] == 1, "there is none yet"
    ask(driver, "[[say: first]]")
    assert ask(driver, "[[say: second]]", "--continue")[:2] == (0, "second\n")
    first, second = driver.rows("n_prompt_tokens")
    assert second[0] > first[0], "the second prompt holds the first turn"
    assert len({row[0] for row in conversations(driver)}) == 1


def test_no_store_keeps_nothing(driver: Driver) -> None:
    assert ask(driver, "x", "--no-store")[0] == 0
    assert conversations(driver) == []
    assert driver.rows("ephemeral") == [(1,)]


def test_options_reach_the_model(driver: Driver) -> None:
    status, out, err = ask(driver, "[[count: 100]]", "--max-tokens", "9", "--system", "Be terse.", "--seed", "5")
    assert (status, out) == (0, "1 2 3 4 5\n"), err
    ((params, n_prompt),) = driver.rows("params, n_prompt_tokens")
    assert '"seed": 5' in params
    assert n_prompt < 200


def test_a_memory_service_that_is_not_there_costs_the_sources_only(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The command prepares its own turn: the running service need not know the address.
    monkeypatch.setitem(driver.stack.environment, "RAG_SERVICE_URL", f"http://127.0.0.1:{free_port()}")
    status, out, err = ask(driver, "[[say: fine]]", "--use-rag")
    assert (status, out) == (0, "fine\n")
    assert "no memories were searched" in err


def test_stop_texts_end_the_answer(driver: Driver) -> None:
    assert ask(driver, "[[count: 100]]", "--stop", "5", "--stop", "x")[1] == "1 2 3 4 \n"


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(driver: Driver) -> None:
    process = driver.start("ask", "[[delay: 50]] [[count: 1000]]", "--owner", driver.owner, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.read(4) == "1 2 "
    interrupt(process)
    status, output = finished(process)
    assert status == 130
    assert "Traceback" not in output
    ((state, text),) = driver.rows("status, text")
    assert state == "interrupted"
    assert text.startswith("1 2 ")


def test_a_reader_that_leaves_stops_the_answer(driver: Driver) -> None:
    read_end, write_end = os.pipe()
    process = driver.start("ask", "[[delay: 50]] [[count: 1000]]", "--owner", driver.owner, stdout=write_end)
    os.close(write_end)
    assert os.read(read_end, 1) == b"1"
    os.close(read_end)
    status, output = finished(process)
    assert status == 1
    assert "Traceback" not in output
    wait_until(lambda: driver.statuses() == ["interrupted"], timeout_secs=10, what="the answer was stopped")


def test_an_answer_that_fails_is_no_success(driver: Driver) -> None:
    status, _, err = ask(driver, "[[delay: 300]] [[count: 1000]]", "--timeout", "0.5")
    assert status == 1
    assert "timeout" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["  "], "prompt is empty"),
        (["x", "--temperature", "-1"], "temperature"),
        (["x", "--max-tokens", "-2"], "max_tokens"),
        (["x", "--conversation", "6c0b2bb6-7b52-4b3e-8e6b-4f2b6d7d6c10"], "no such conversation"),
        (["x", "--continue", "--system", "Be terse."], "keeps its own"),
        (["y" * 100_000], "context"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(driver: Driver, arguments: list[str], words: str) -> None:
    ask(driver, "[[say: so that there is a conversation]]") if "--continue" in arguments else None
    status, out, err = ask(driver, *arguments)
    assert (status, out) == (1, "")
    assert words in err
    assert err.count("\n") == 1


def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    stack = LiveStack(backend="fake", environment={})
    status, _, err = ask(Driver(stack, tmp_path), "hello")
    stack.clean_up()
    assert status == 1
    assert "the service is not running" in err


def test_a_second_ctrl_c_leaves_at_once(driver: Driver) -> None:
    process = driver.start("ask", "[[delay: 50]] [[count: 1000]]", "--owner", driver.owner)
    assert process.stdout is not None
    process.stdout.read(2)
    worker = driver.stack.process("gemma-worker")
    worker.suspend()
    try:
        interrupt(process)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        interrupt(process)
        assert process.wait(1.0) == 128 + signal.SIGINT
    finally:
        worker.resume()


def conversations(driver: Driver) -> list[tuple[str]]:
    return driver.table("SELECT id FROM chat_conversation WHERE owner = ?")


def ask_bytes(
    driver: Driver, prompt: str, data: bytes = b"", environment: dict[str, str] | None = None
) -> tuple[int, bytes, bytes]:
    """Exit status, stdout, stderr; undecoded."""
    result = subprocess.run(
        [sys.executable, str(PROJECT / "manage.py"), "ask", prompt, "--owner", driver.owner],
        env={**driver.stack.environment, **(environment or {})},
        input=data,
        capture_output=True,
        timeout=100,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


class TestStreams:
    """Standard streams in every state: one line on stderr at most, never a traceback."""

    @pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"Gr??e"), ("latin-1", "Grüße".encode("latin-1"))])
    def test_an_encoding_without_the_characters(self, driver: Driver, encoding: str, shown: bytes) -> None:
        environment = {"PYTHONIOENCODING": f"{encoding}:strict"}
        # The prompt comes over stdin, which is UTF-8 whatever the locale says.
        status, out, err = ask_bytes(driver, "-", "[[say: Grüße 👋]]".encode(), environment)
        assert (status, err) == (0, b"")
        assert out.startswith(shown)

    @pytest.mark.parametrize(("text", "expected"), [("\ufeff[[say: plain]]", "plain\n"), ("[[say: Grüße]]", "Grüße\n")])
    def test_input_is_utf_8_without_a_mark(self, driver: Driver, text: str, expected: str) -> None:
        assert ask_bytes(driver, "-", text.encode(), {"PYTHONUTF8": "1"}) == (0, expected.encode(), b"")

    @pytest.mark.parametrize("data", [b"\xff\xfeh\x00i\x00", b"caf\xe9"])
    def test_input_in_another_encoding_is_one_line_of_error(self, driver: Driver, data: bytes) -> None:
        status, _, err = ask_bytes(driver, "-", data)
        assert status == 1
        assert b"standard input is not UTF-8" in err
        assert err.count(b"\n") == 1

    @pytest.mark.parametrize(("closed", "words"), [("<&-", "standard input is closed"), (">&-", "is closed")])
    def test_a_closed_stream_is_one_line_of_error(self, driver: Driver, closed: str, words: str) -> None:
        command = f'exec "$0" "$1" ask - --owner "$2" {closed}'
        process = subprocess.run(
            ["sh", "-c", command, sys.executable, str(PROJECT / "manage.py"), driver.owner],
            env=driver.stack.environment,
            input="hello",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert process.returncode == 1
        assert words in process.stderr
        assert process.stderr.count("\n") == 1

    def test_a_full_device_stops_the_answer(self, driver: Driver) -> None:
        with Path("/dev/full").open("w") as full:
            process = driver.start("ask", "[[delay: 50]] [[count: 1000]]", "--owner", driver.owner, stdout=full)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert err == "cannot write the answer: No space left on device\n"
        wait_until(lambda: driver.statuses() == ["interrupted"], timeout_secs=10, what="the answer was stopped")

    @pytest.mark.slow
    def test_a_byte_order_mark_is_no_part_of_the_system_prompt(self, driver: Driver, tmp_path: Path) -> None:
        counts = []
        for mark in ("", "\ufeff"):
            (tmp_path / "system.txt").write_text(f"{mark}Be terse.", encoding="utf-8")
            assert ask(driver, "[[say: x]]", "--system-file", str(tmp_path / "system.txt"), "--no-store")[0] == 0
            counts.append(driver.rows("n_prompt_tokens")[-1])
        assert counts[0] == counts[1]


def test_ctrl_c_while_it_starts_is_one_line(driver: Driver) -> None:
    process = driver.start("ask", "-", "--owner", driver.owner, stdin=subprocess.PIPE)
    time.sleep(1.0)  # it waits for its prompt by now, or still imports
    interrupt(process)
    status, printed = finished(process)
    assert status == 130
    assert printed in ("stopped\n", "stopped before the answer began\n")
