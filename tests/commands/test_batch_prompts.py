"""`batch_prompts` against a running service: whole runs, and runs that are cut in every way."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.commands.driver import Driver, finished, interrupt
from tests.live_stack import LiveStack, wait_until

UNFINISHED = "status IN ('preparing', 'queued', 'running')"


def say(text: str, delay_ms: int = 0) -> dict[str, str]:
    return {"prompt": f"[[delay: {delay_ms}]] [[say: {text}]]" if delay_ms else f"[[say: {text}]]"}


class TestWholeRuns:
    def test_every_line_is_answered_once(self, driver: Driver) -> None:
        driver.write(*[{**say(f"answer {number}"), "id": f"doc-{number}"} for number in range(1, 31)])
        status, stderr = driver.batch("--max-tokens", "40", "--seed", "3")
        assert status == 0, stderr
        assert "All 30 lines answered" in stderr
        assert driver.lines_done() == list(range(1, 31))
        for result in driver.results():
            assert result["id"] == f"doc-{result['line']}"
            assert result["response"] == f"answer {result['line']}"
            assert result["finish_reason"] == "stop"
            assert result["usage"]["completion_tokens"] == len(result["response"])
            assert result["timings"]["first_token"] > 0
            assert result["sources"] == []
            assert result["conversation_id"] is None
        assert {row[0] for row in driver.rows("priority")} == {2}
        assert sorted(path.name for path in driver.output.parent.iterdir()) == ["in.jsonl", "out.jsonl"]

    def test_plain_lines_and_a_system_prompt_from_a_file(self, driver: Driver, tmp_path: Path) -> None:
        (tmp_path / "system.txt").write_text("Be terse.")
        driver.input = tmp_path / "in.txt"
        driver.input.write_text("hello\n\nworld\n")
        driver.succeed("--system-file", str(tmp_path / "system.txt"))
        assert {result["line"]: result["response"] for result in driver.results()} == {
            1: "You said: hello",
            3: "You said: world",
        }
        prompts = {result["usage"]["prompt_tokens"] for result in driver.results()}
        assert max(prompts) < 200, "the default system prompt is much longer than two words"

    def test_a_second_start_has_nothing_to_do(self, driver: Driver) -> None:
        driver.write(say("a"), say("b"))
        driver.succeed()
        before = driver.output.read_bytes()
        driver.succeed()
        assert driver.output.read_bytes() == before
        assert len(driver.rows("id")) == 2

    def test_more_lines_go_on_where_it_ended(self, driver: Driver) -> None:
        driver.write(say("a"))
        driver.batch()
        driver.write(say("a"), say("b"))
        driver.succeed()
        assert [result["response"] for result in driver.results()] == ["a", "b"]

    def test_store_keeps_a_conversation_for_each(self, driver: Driver) -> None:
        driver.write(say("a"), say("b"))
        driver.succeed("--store")
        assert len({result["conversation_id"] for result in driver.results()}) == 2

    def test_documents_of_a_line_are_its_sources(self, driver: Driver) -> None:
        driver.write(
            {"prompt": "[[say: see [1] here]]", "context": [{"text": "The rig was late.", "speaker": "Sarah"}]}
        )
        driver.succeed()
        (source,) = driver.results()[0]["sources"]
        assert (source["label"], source["speaker"], source["text"]) == ("1", "Sarah", "The rig was late.")
        assert source["cited"] is True

    def test_no_more_than_asked_for_are_under_way(self, driver: Driver) -> None:
        driver.write(*[say("x" * 20, delay_ms=20) for _ in range(20)])  # long enough to be seen side by side
        process = driver.start_batch("--concurrency", "3")
        most = 0
        while process.poll() is None:
            most = max(most, len(driver.rows("id", UNFINISHED)))
            time.sleep(0.02)
        assert finished(process)[0] == 0
        assert most == 3


class TestFailures:
    def test_bad_lines_are_reported_and_the_others_answered(self, driver: Driver) -> None:
        driver.write(
            say("a"), "{broken", {"prompt": "x", "max_tokens": -2, "id": "m"}, say("d"), {"prompt": "y" * 200_000}
        )
        status, stderr = driver.batch()
        assert status == 1
        assert driver.lines_done() == [1, 4]
        assert "3 lines failed" in stderr
        for words in ("line 2: invalid_line", "line 3: invalid_request", "line 5: context_overflow"):
            assert words in stderr
        failed = [json.loads(line) for line in Path(f"{driver.output}.failed").read_text().splitlines()]
        assert {(record["line"], record["id"]) for record in failed} == {(2, None), (3, "m"), (5, None)}

    @pytest.mark.slow
    def test_a_failed_line_is_tried_again_and_its_report_goes_when_it_succeeds(self, driver: Driver) -> None:
        driver.write(say("a"), {**say("slow answer", delay_ms=200), "timeout_s": 0.5})
        for tries in (1, 2):
            status, stderr = driver.batch()
            assert status == 1
            assert "line 2: timeout" in stderr
            assert len(driver.rows("id")) == 1 + tries
        driver.write(say("a"), say("slow answer"))
        driver.succeed()
        assert driver.lines_done() == [1, 2]
        assert not Path(f"{driver.output}.failed").exists()

    def test_changed_options_or_lines_are_refused_until_restart(self, driver: Driver) -> None:
        driver.write(say("a"), "{broken")
        driver.batch("--temperature", "0.5")
        before = driver.output.read_bytes()
        status, stderr = driver.batch("--temperature", "0.6")
        assert (status, "other options: temperature" in stderr) == (1, True)
        driver.write(say("A"), "{broken")
        status, stderr = driver.batch("--temperature", "0.5")
        assert (status, "line 1 of" in stderr) == (1, True)
        assert driver.output.read_bytes() == before
        driver.write(say("A"))
        driver.succeed("--temperature", "0.6", "--restart")
        assert [result["response"] for result in driver.results()] == ["A"]

    def test_a_file_of_something_else_is_left_alone(self, driver: Driver) -> None:
        driver.write(say("a"))
        driver.output.write_text("my thesis\n")
        status, stderr = driver.batch()
        assert (status, "not a result" in stderr) == (1, True)
        assert driver.output.read_text() == "my thesis\n"

    def test_in_and_out_must_differ(self, driver: Driver) -> None:
        driver.write(say("a"))
        driver.output = driver.input
        status, stderr = driver.batch()
        assert (status, "same file" in stderr) == (1, True)

    def test_a_second_process_on_the_same_file_is_refused(self, driver: Driver) -> None:
        driver.write(say("a long answer that ends when the test does", delay_ms=500))
        first = driver.start_batch()
        driver.wait_for_rows(1)
        status, stderr = driver.batch()
        assert (status, "another batch_prompts" in stderr) == (1, True)
        interrupt(first)
        assert finished(first)[0] == 130

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--user", "nobody"], "no user"),
            (["--concurrency", "0"], "at least 1"),
            (["--system-file", "/no/such/file"], "/no/such/file"),
        ],
    )
    def test_a_command_line_that_cannot_be_meant(self, driver: Driver, options: list[str], words: str) -> None:
        driver.write(say("a"))
        status, stderr = finished(driver.start("batch_prompts", str(driver.input), str(driver.output), *options))
        assert (status, words in stderr) == (1, True)
        assert not driver.output.exists()

    def test_without_a_service_it_says_so(self, tmp_path: Path) -> None:
        stack = LiveStack(backend="fake", environment={})
        driver = Driver(stack, tmp_path)
        driver.write(say("a"))
        status, stderr = driver.batch()
        stack.clean_up()
        assert status == 1
        assert "the service is not running" in stderr
        assert "Traceback" not in stderr
        assert not driver.output.exists()


class TestCutRuns:
    def test_a_killed_run_goes_on_and_asks_nothing_twice(self, driver: Driver) -> None:
        driver.write(*[say(f"answer {number}", delay_ms=10) for number in range(1, 41)])
        first = driver.start_batch("--concurrency", "6")
        driver.wait_for_results(9)
        os.kill(first.pid, signal.SIGKILL)
        finished(first)
        n_written = len(driver.results())
        assert n_written < 40
        with driver.output.open("ab") as file:
            file.write(driver.output.read_bytes().splitlines()[0][:50])
        status, stderr = driver.batch("--concurrency", "6")
        assert status == 0, stderr
        assert driver.lines_done() == list(range(1, 41))
        assert all(result["response"] == f"answer {result['line']}" for result in driver.results())
        assert driver.statuses() == ["complete"] * 40

    @pytest.mark.slow
    def test_a_run_that_is_killed_again_and_again_ends(self, driver: Driver) -> None:
        driver.write(*[say(f"{number}", delay_ms=20) for number in range(1, 25)])
        for n_results in (4, 8, 12):
            process = driver.start_batch("--concurrency", "4")
            driver.wait_for_results(n_results)
            os.kill(process.pid, signal.SIGKILL)
            finished(process)
        driver.succeed("--concurrency", "4")
        assert driver.lines_done() == list(range(1, 25))
        assert driver.statuses() == ["complete"] * 24

    def test_ctrl_c_stops_what_runs_and_the_next_start_goes_on(self, driver: Driver) -> None:
        driver.write(*[say(f"a longer answer {number}", delay_ms=40) for number in range(1, 13)])
        process = driver.start_batch("--concurrency", "4")
        driver.wait_for_results(2)
        interrupt(process)
        interrupted_at = time.monotonic()
        status, stderr = finished(process)
        assert time.monotonic() - interrupted_at < 5
        assert status == 130
        assert "of 12 lines answered. Start again to continue." in stderr
        assert "Traceback" not in stderr
        wait_until(lambda: not driver.rows("id", UNFINISHED), timeout_secs=10, what="nothing is left under way")
        n_complete = driver.statuses().count("complete")
        assert n_complete == len(driver.results())
        driver.succeed("--concurrency", "4")
        assert driver.lines_done() == list(range(1, 13))
        assert driver.statuses().count("complete") == 12

    @pytest.mark.slow
    def test_a_second_ctrl_c_leaves_at_once(self, driver: Driver) -> None:
        driver.write(*[say("a long answer that does not end soon", delay_ms=200) for _ in range(2)])
        process = driver.start_batch()
        driver.wait_for_rows(2, "status = 'running'")
        worker = driver.stack.process("gemma-worker")
        worker.suspend()  # the process does not stop, so the command waits
        try:
            interrupt(process)
            with pytest.raises(Exception, match="timed out"):
                process.wait(0.7)
            interrupt(process)
            assert process.wait(0.5) == 130
        finally:
            worker.resume()

    @pytest.mark.slow
    def test_restart_stops_what_the_former_run_left(self, driver: Driver) -> None:
        driver.write(*[say("a very long answer of the former run", delay_ms=300) for _ in range(3)])
        process = driver.start_batch()
        driver.wait_for_rows(3)
        os.kill(process.pid, signal.SIGKILL)
        finished(process)
        driver.write(say("b"))
        driver.succeed("--restart")
        assert [result["response"] for result in driver.results()] == ["b"]
        wait_until(lambda: not driver.rows("id", UNFINISHED), timeout_secs=10, what="nothing is left under way")

    def test_what_an_operator_stopped_is_a_failure(self, driver: Driver) -> None:
        driver.write(say("a very long answer indeed", delay_ms=1500))
        process = driver.start_batch()
        driver.wait_for_rows(1, "status = 'running'")
        stop = (
            "from inference.models import Generation; from inference.queue.generations import request_cancel; "
            f"request_cancel(generation_id=Generation.objects.get(owner='{driver.owner}').pk)"
        )
        assert driver.stack.run("shell", "-c", stop).returncode == 0
        status, stderr = finished(process)
        assert (status, "line 1: cancelled" in stderr) == (1, True)


class TestBesideOthers:
    def test_a_person_is_served_before_waiting_prompts(self, driver: Driver) -> None:
        driver.write(*[say("batch answer", delay_ms=30) for _ in range(16)])
        process = driver.start_batch("--concurrency", "16")
        driver.wait_for_rows(16)
        person = httpx.post(
            f"{driver.stack.url}/chat", json={"messages": [{"role": "user", "content": "[[say: at once]]"}]}, timeout=30
        ).json()
        assert person["response"] == "at once"
        assert len(driver.rows("id", "status = 'queued'")) >= 8, "most of the batch still waits"
        assert finished(process)[0] == 0
        assert driver.lines_done() == list(range(1, 17))

    @pytest.mark.slow
    @pytest.mark.timeout(180)
    def test_a_full_queue_makes_it_wait_and_a_killed_service_too(self, tmp_path: Path) -> None:
        stack = LiveStack(
            backend="fake", environment={"QUEUE_MAX": "2", "QUEUE_MAX_PER_CALLER": "3", "GEMMA_PARALLEL": "1"}
        )
        driver = Driver(stack, tmp_path)
        try:
            stack.start()
            driver.write(*[say(f"answer {number}", delay_ms=15) for number in range(1, 31)])
            process = driver.start_batch("--concurrency", "8")
            driver.wait_for_results(5)
            os.kill(stack.pid, signal.SIGKILL)
            stack.wait()
            stack.start()
            status, stderr = finished(process)
            assert status == 0, stderr
            assert driver.lines_done() == list(range(1, 31))
            assert driver.statuses() == ["complete"] * 30
        finally:
            driver.clean_up()
            stack.clean_up()


class TestPipes:
    def test_dashes_are_standard_input_and_output(self, driver: Driver) -> None:
        process = driver.start("batch_prompts", "-", "-", "--owner", driver.owner, stdin=subprocess.PIPE)
        out, err = process.communicate("[[say: one]]\n[[say: two]]\n", timeout=60)
        assert process.returncode == 0, err
        assert sorted(json.loads(line)["response"] for line in out.splitlines()) == ["one", "two"]
        assert not Path("-").exists()

    def test_a_pipe_as_output_file_is_refused(self, driver: Driver) -> None:
        driver.write(say("a"))
        process = driver.start("batch_prompts", str(driver.input), "/dev/stdout", "--owner", driver.owner)
        status, printed = finished(process)
        assert status == 1
        assert "use - for standard output" in printed

    def test_a_reader_that_leaves_ends_the_batch(self, driver: Driver) -> None:
        driver.write(*[say("x", delay_ms=100) for _ in range(10)])
        read_end, write_end = os.pipe()
        process = driver.start("batch_prompts", str(driver.input), "-", "--owner", driver.owner, stdout=write_end)
        os.close(write_end)
        os.close(read_end)
        status, printed = finished(process)
        assert status == 1
        assert "cannot write to standard output" in printed
        assert "Traceback" not in printed
        assert driver.rows("id", UNFINISHED) == []

    def test_an_empty_input_is_named(self, driver: Driver) -> None:
        driver.input.write_text("\n \n")
        status, printed = driver.batch()
        assert status == 0
        assert "is empty: there is nothing to answer" in printed

    def test_unknown_options_are_reported_once(self, driver: Driver) -> None:
        driver.write({**say("a"), "temperatur": 0}, {**say("b"), "temperatur": 1})
        status, printed = driver.batch()
        assert status == 0
        assert printed.count("unknown option 'temperatur'") == 1
