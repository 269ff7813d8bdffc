"""The file of results: whole lines, one writer, and no mixing of two runs."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from chat.batch.errors import BatchError, InputChanged, OutputBusy, OutputForeign
from chat.batch.input_files import PromptFormat
from chat.batch.inputs import BatchInput, BatchOptions, LineFailure
from chat.batch.outputs import BatchOutput, CompletedLines, ResultMark

OPTIONS = BatchOptions(fields={"store": False}, system=None, owner="local")
PROMPTS = b"one\ntwo\nthree\n"


@pytest.fixture
def source(tmp_path: Path) -> BatchInput:
    (tmp_path / "in.txt").write_bytes(PROMPTS)
    return BatchInput(tmp_path / "in.txt", PromptFormat.AUTO, OPTIONS, 1000)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def answer(output: BatchOutput, source: BatchInput, line: int, text: str = "fine") -> None:
    raw = next(raw for raw in source.lines() if raw.number == line)
    output.append({"line": line, "id": None, "response": text, "digest": source.digest(raw)})


def answered(out: Path, source: BatchInput, *lines: int) -> str:
    """A file with these lines answered by a run that was killed; the run's name."""
    with BatchOutput(out) as output:
        run = output.begin(OPTIONS)
        for line in lines:
            answer(output, source, line)
    return run


def changed_to(out: Path, content: bytes) -> BatchInput:
    path = out.with_name("changed.txt")
    path.write_bytes(content)
    return BatchInput(path, PromptFormat.AUTO, OPTIONS, 1000)


def loaded(out: Path) -> list[int]:
    with BatchOutput(out) as output:
        output.load()
        return [line for line in range(1, 10) if line in output.done]


class TestGoingOn:
    def test_what_was_appended_is_done(self, out: Path, source: BatchInput) -> None:
        answered(out, source, 3, 1)
        assert loaded(out) == [1, 3]

    def test_a_run_keeps_its_name_until_it_is_complete(self, out: Path, source: BatchInput) -> None:
        run = answered(out, source, 1)
        with BatchOutput(out) as output:
            assert output.begin(OPTIONS) == run
            output.finish(failures=1)
        with BatchOutput(out) as output:
            assert output.begin(OPTIONS) == run
            output.finish(failures=0)
        assert sorted(path.name for path in out.parent.iterdir()) == ["in.txt", "out.jsonl"]

    def test_a_half_written_last_line_is_cut_off(self, out: Path, source: BatchInput) -> None:
        answered(out, source, 1, 2)
        whole = out.read_bytes()
        for cut in range(1, len(whole.splitlines(keepends=True)[1])):
            out.write_bytes(whole[:-cut])
            assert loaded(out) == [1]
            assert out.read_bytes() == whole.splitlines(keepends=True)[0]

    def test_a_half_written_first_line_is_cut_off_when_a_run_was_begun(self, out: Path, source: BatchInput) -> None:
        answered(out, source)
        out.write_bytes(b'{"line": 1, "id"')
        assert loaded(out) == []
        assert out.read_bytes() == b""

    def test_text_of_every_kind_survives(self, out: Path, source: BatchInput) -> None:
        text = 'é \u2028 "quoted" \\ 👋🏽 \x00 \n end'
        with BatchOutput(out) as output:
            answer(output, source, 1, text)
        (line,) = out.read_text(encoding="utf-8").split("\n")[:-1]
        assert json.loads(line)["response"] == text

    def test_a_lone_surrogate_does_not_stop_a_batch(self, out: Path, source: BatchInput) -> None:
        with BatchOutput(out) as output:
            answer(output, source, 1, "\ud800")
        assert loaded(out) == [1]


class TestRefusals:
    @pytest.mark.parametrize(
        "content",
        [
            b"dear diary\n",
            b"a precious text without a line end",
            b'{"line": 0, "digest": "%s"}\n' % (b"a" * 32),
            b'{"line": 99999999999999, "digest": "%s"}\n' % (b"a" * 32),
            b'{"line": 1, "digest": "short"}\n',
            b'{"line": "1", "digest": "%s"}\n' % (b"a" * 32),
            b"\x00\x00\x00\n",
        ],
    )
    def test_a_file_of_something_else_is_not_touched(self, out: Path, content: bytes) -> None:
        out.write_bytes(content)
        with BatchOutput(out) as output, pytest.raises(OutputForeign, match="line 1"):
            output.load()
        assert out.read_bytes() == content

    def test_a_damaged_line_in_the_middle_is_not_skipped(self, out: Path, source: BatchInput) -> None:
        answered(out, source, 1, 2, 3)
        lines = out.read_bytes().splitlines(keepends=True)
        out.write_bytes(lines[0] + b"garbage\n" + lines[2])
        with BatchOutput(out) as output, pytest.raises(OutputForeign, match="line 2"):
            output.load()

    @pytest.mark.parametrize("content", [b"one\nTWO\nthree\n", b"zero\none\ntwo\nthree\n", b"one\ntwo \nthree\n"])
    def test_a_changed_line_that_is_done_is_refused(self, out: Path, source: BatchInput, content: bytes) -> None:
        answered(out, source, 2)
        changed = changed_to(out, content)
        with BatchOutput(out) as output:
            output.load()
            with pytest.raises(InputChanged, match="line 2"):
                output.check_input(changed)

    @pytest.mark.parametrize("content", [b"one\n", b"one\n\nthree\n", b""])
    def test_a_line_that_is_done_and_gone_is_refused(self, out: Path, source: BatchInput, content: bytes) -> None:
        answered(out, source, 2)
        changed = changed_to(out, content)
        with BatchOutput(out) as output:
            output.load()
            with pytest.raises(InputChanged, match="1 lines that"):
                output.check_input(changed)

    def test_lines_that_are_not_done_may_change_and_more_may_come(self, out: Path, source: BatchInput) -> None:
        answered(out, source, 1)
        with BatchOutput(out) as output:
            output.load()
            assert output.check_input(changed_to(out, b"one\nTWO\nthree\nfour\n")) == 4

    def test_changed_options_are_named(self, out: Path, source: BatchInput) -> None:
        answered(out, source)
        other = BatchOptions(fields={"store": False, "temperature": 0.2}, system="Be terse.", owner="local")
        with BatchOutput(out) as output, pytest.raises(InputChanged, match="system, temperature"):
            output.check_options(other)

    def test_options_that_changed_after_a_complete_run_are_seen_by_its_results(
        self, out: Path, source: BatchInput
    ) -> None:
        answered(out, source, 1)
        other = BatchOptions(fields={"store": True}, system=None, owner="local")
        with BatchOutput(out) as output:
            output.finish(failures=0)
            output.load()
            output.check_options(other)
            with pytest.raises(InputChanged, match="line 1"):
                output.check_input(BatchInput(source.path, PromptFormat.AUTO, other, 1000))

    def test_wiping_makes_room_for_another_run(self, out: Path, source: BatchInput) -> None:
        run = answered(out, source, 1)
        with BatchOutput(out) as output:
            output.append_failure(LineFailure(2, None, "code", "message"))
            output.wipe()
            output.load()
            assert output.done.count == 0
            assert output.begin(OPTIONS) != run
        assert not output.failed_path.exists()


class TestOneWriter:
    def test_a_second_process_is_refused_and_the_lock_ends_with_the_first(self, out: Path) -> None:
        hold = (
            "import fcntl, sys, os; fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
            "fcntl.flock(fd, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", hold, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            with pytest.raises(OutputBusy, match=r"out\.jsonl"):
                BatchOutput(out)
            holder.kill()
            holder.wait()
            with BatchOutput(out):
                pass

    def test_a_folder_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(BatchError, match="No such file"):
            BatchOutput(tmp_path / "missing" / "out.jsonl")

    def test_a_full_disk_leaves_whole_lines(self, out: Path, source: BatchInput) -> None:
        with BatchOutput(out) as output:
            answer(output, source, 1)
            before = out.read_bytes()
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            # The kernel writes up to the limit and refuses the rest, as a full disk does.
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
            try:
                with pytest.raises(BatchError, match="cannot write"):
                    answer(output, source, 2)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert out.read_bytes() == before


class TestDone:
    def test_eight_bytes_a_line(self) -> None:
        done = CompletedLines()
        for line in range(1, 100_001):
            done.add(ResultMark(line, f"{line:032x}"))
        assert done.count == 100_000
        assert sys.getsizeof(done._marks) < 100_000 * 10

    def test_a_digest_that_begins_with_zeros_is_done_all_the_same(self) -> None:
        done = CompletedLines()
        done.add(ResultMark(5, "0" * 32))
        assert 5 in done
        assert 4 not in done
        assert 6 not in done

    def test_a_line_that_is_there_twice_counts_once(self) -> None:
        done = CompletedLines()
        done.add(ResultMark(2, "a" * 32))
        done.add(ResultMark(2, "a" * 32))
        assert done.count == 1
