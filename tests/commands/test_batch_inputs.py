"""Lines of a file become prompts, or failures of their own."""

import json
from pathlib import Path

import pytest

from chat.batch.errors import InputUnreadable
from chat.batch.input_files import PromptFormat
from chat.batch.inputs import BatchInput, BatchOptions, BatchPrompt, LineFailure
from inference.models import Priority

OPTIONS = BatchOptions(fields={"store": False}, system=None, owner="local")


def source(
    path: Path, data: bytes, options: BatchOptions = OPTIONS, form: PromptFormat = PromptFormat.AUTO, limit: int = 1000
) -> BatchInput:
    path.write_bytes(data)
    return BatchInput(path, form, options, limit)


def parsed(opened: BatchInput) -> list[BatchPrompt | LineFailure]:
    return [opened.parse(raw) for raw in opened.lines()]


def texts(result: list[BatchPrompt | LineFailure]) -> list[str]:
    return [prompt.request.messages[-1].content for prompt in result if isinstance(prompt, BatchPrompt)]


def one(path: Path, line: object, options: BatchOptions = OPTIONS) -> BatchPrompt | LineFailure:
    (only,) = parsed(source(path, json.dumps(line).encode() + b"\n", options))
    return only


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return tmp_path / "in.jsonl"


class TestForms:
    def test_plain_lines_are_prompts_and_blank_ones_count_as_lines(self, tmp_path: Path) -> None:
        result = parsed(source(tmp_path / "in.txt", b"first\n\n  \nsecond \xc3\xa9\r\nlast without end"))
        assert [
            (prompt.line, prompt.request.messages[-1].content) for prompt in result if isinstance(prompt, BatchPrompt)
        ] == [
            (1, "first"),
            (4, "second é"),
            (5, "last without end"),
        ]

    def test_a_first_line_that_is_an_object_makes_it_jsonl(self, tmp_path: Path) -> None:
        assert source(tmp_path / "in.txt", b'\n{"prompt": "x"}\n').form is PromptFormat.JSONL

    def test_a_first_line_that_is_other_json_is_plain(self, tmp_path: Path) -> None:
        assert source(tmp_path / "in.txt", b"42\n").form is PromptFormat.PLAIN

    def test_the_name_decides_before_the_content(self, jsonl: Path) -> None:
        (result,) = parsed(source(jsonl, b"not json\n"))
        assert isinstance(result, LineFailure)
        assert result.code == "invalid_line"

    def test_plain_can_be_forced_on_text_that_looks_like_json(self, tmp_path: Path) -> None:
        (result,) = parsed(source(tmp_path / "in.txt", b'{"prompt": 1}\n', form=PromptFormat.PLAIN))
        assert isinstance(result, BatchPrompt)
        assert result.request.messages[-1].content == '{"prompt": 1}'

    def test_a_byte_order_mark_is_not_part_of_the_first_prompt(self, tmp_path: Path) -> None:
        (result,) = parsed(source(tmp_path / "in.txt", b"\xef\xbb\xbfhello\n"))
        assert isinstance(result, BatchPrompt)
        assert result.request.messages[-1].content == "hello"

    def test_an_empty_file_has_no_prompts(self, tmp_path: Path) -> None:
        assert parsed(source(tmp_path / "in.txt", b"")) == []

    def test_a_missing_file_says_which(self, tmp_path: Path) -> None:
        with pytest.raises(InputUnreadable, match=r"nothing\.txt"):
            BatchInput(tmp_path / "nothing.txt", PromptFormat.AUTO, OPTIONS, 1000)

    def test_a_folder_is_no_input(self, tmp_path: Path) -> None:
        with pytest.raises(InputUnreadable, match="directory"):
            BatchInput(tmp_path, PromptFormat.AUTO, OPTIONS, 1000)


class TestRequests:
    def test_everything_runs_at_batch_priority_even_if_a_line_says_otherwise(self, jsonl: Path) -> None:
        result = one(jsonl, {"prompt": "x", "priority": "interactive"})
        assert isinstance(result, BatchPrompt)
        assert result.request.priority == Priority.BATCH

    def test_a_line_overrides_the_command_line(self, jsonl: Path) -> None:
        options = BatchOptions(fields={"max_tokens": 5, "temperature": 0.1}, system="Be terse.", owner="local")
        result = one(jsonl, {"prompt": "x", "max_tokens": 9, "system": "Be long."}, options)
        assert isinstance(result, BatchPrompt)
        assert (result.request.max_tokens, result.request.temperature) == (9, 0.1)
        assert [message.content for message in result.request.messages] == ["Be long.", "x"]

    def test_messages_with_a_system_message_keep_it(self, jsonl: Path) -> None:
        messages = [{"role": "system", "content": "Mine."}, {"role": "user", "content": "x"}]
        result = one(jsonl, {"messages": messages}, BatchOptions(fields={}, system="Yours.", owner="local"))
        assert isinstance(result, BatchPrompt)
        assert [message.content for message in result.request.messages] == ["Mine.", "x"]

    @pytest.mark.parametrize("name", [7, "a", None, {"doc": 3}, [1, 2]])
    def test_the_id_may_be_any_json(self, jsonl: Path, name: object) -> None:
        assert one(jsonl, {"prompt": "x", "id": name}).prompt_id == name


class TestBadLines:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ({}, "prompt"),
            ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, "one of"),
            ({"prompt": 5}, "string"),
            ({"prompt": ""}, "empty"),
            ({"messages": []}, "messages"),
            ({"messages": "hello"}, "list"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "role"),
            ({"prompt": "x", "max_tokens": "many"}, "max_tokens"),
            ({"prompt": "x", "temperature": "hot"}, "number"),
            ({"prompt": "x", "system": 5}, "string"),
            ({"prompt": "x", "conversation_id": "6c0b2bb6-7b52-4b3e-8e6b-4f2b6d7d6c10"}, "in parallel"),
            ([1, 2], "object"),
            ("text", "object"),
        ],
    )
    def test_a_line_that_cannot_be_meant_fails_alone(self, jsonl: Path, line: object, words: str) -> None:
        result = parsed(source(jsonl, json.dumps(line).encode() + b'\n{"prompt": "fine"}\n'))
        assert isinstance(result[0], LineFailure)
        assert words in result[0].message
        assert isinstance(result[1], BatchPrompt)

    @pytest.mark.parametrize(
        "line",
        [
            b"{",
            b"\xff\xfe{}",
            b'{"prompt": "x", "id": NaN}',
            b"[" * 100_000,
            b'{"prompt": "\\ud800"}',
            b'{"prompt": "a\\u0000"}',
        ],
    )
    def test_bytes_that_are_no_json_for_us_fail_alone(self, jsonl: Path, line: bytes) -> None:
        result = parsed(source(jsonl, line + b'\n{"prompt": "fine"}\n', limit=1_000_000))
        assert [type(item) for item in result] == [LineFailure, BatchPrompt]

    def test_the_id_of_a_bad_line_is_kept_for_the_report(self, jsonl: Path) -> None:
        assert one(jsonl, {"id": "doc-7", "prompt": "x", "max_tokens": -1}).prompt_id == "doc-7"

    def test_a_line_beyond_the_limit_fails_without_being_read_whole(self, jsonl: Path) -> None:
        long = b'{"prompt": "' + b"x" * 5000 + b'"}\n'
        result = parsed(source(jsonl, long + b'{"prompt": "fine"}\n', limit=100))
        assert isinstance(result[0], LineFailure)
        assert result[0].code == "too_long"
        assert isinstance(result[1], BatchPrompt)
        assert result[1].line == 2

    def test_a_line_of_just_the_limit_is_taken(self, tmp_path: Path) -> None:
        (result,) = parsed(source(tmp_path / "in.txt", b"x" * 100 + b"\n", limit=100))
        assert isinstance(result, BatchPrompt)


class TestDigests:
    def test_the_same_line_and_options_give_the_same_digest(self, tmp_path: Path) -> None:
        first = source(tmp_path / "a.txt", b"x\ny\n")
        second = source(tmp_path / "b.txt", b"x\r\ny")
        assert [first.digest(raw) for raw in first.lines()] == [second.digest(raw) for raw in second.lines()]

    @pytest.mark.parametrize(
        "options",
        [
            BatchOptions(fields={"store": False, "temperature": 0.2}, system=None, owner="local"),
            BatchOptions(fields={"store": False}, system="Be terse.", owner="local"),
            BatchOptions(fields={"store": False}, system=None, owner="user:1"),
        ],
    )
    def test_every_option_counts(self, tmp_path: Path, options: BatchOptions) -> None:
        plain = source(tmp_path / "a.txt", b"x\n")
        other = source(tmp_path / "b.txt", b"x\n", options)
        assert plain.digest(next(plain.lines())) != other.digest(next(other.lines()))

    def test_a_replaced_file_does_not_reach_a_run_under_way(self, tmp_path: Path) -> None:
        opened = source(tmp_path / "a.txt", b"old\n")
        (tmp_path / "new.txt").write_bytes(b"new\n")
        (tmp_path / "new.txt").replace(tmp_path / "a.txt")
        assert [raw.data for raw in opened.lines()] == [b"old"]
