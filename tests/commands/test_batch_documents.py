"""Inputs that are JSON documents, pipes or partly misunderstood: each is read as meant, or refused by name."""

import io
import json
import os
import threading
from pathlib import Path

import pytest

from chat.batch.errors import BatchError, InputUnreadable
from chat.batch.input_files import PromptFormat
from chat.batch.inputs import BatchInput, BatchOptions, BatchPrompt, LineFailure
from chat.batch.outputs import BatchOutput
from chat.batch.stream_output import StreamOutput

OPTIONS = BatchOptions(fields={"store": False}, system=None, owner="local")


def open_text(path: Path, text: str, options: BatchOptions = OPTIONS) -> BatchInput:
    path.write_text(text, encoding="utf-8")
    return BatchInput(path, PromptFormat.AUTO, options, 10_000)


def prompts(source: BatchInput) -> list[str]:
    parsed = [source.parse(line) for line in source.lines()]
    return [item.request.messages[-1].content for item in parsed if isinstance(item, BatchPrompt)]


def failure(path: Path, line: str, options: BatchOptions = OPTIONS) -> LineFailure:
    source = open_text(path, line + "\n", options)
    (item,) = [source.parse(raw) for raw in source.lines()]
    assert isinstance(item, LineFailure)
    return item


class TestDocuments:
    @pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in.txt", "in"])
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('[\n  {"prompt": "a"},\n  {"prompt": "b"}\n]\n', ["a", "b"]),
            ('[{"prompt": "a"}, {"prompt": "b"}]', ["a", "b"]),
            ('{\n  "prompt": "a",\n  "max_tokens": 5\n}\n', ["a"]),
            ('\ufeff[\n"a",\n"b"]', ["a", "b"]),
            ('\n\n  [ "one text" ]\n', ["one text"]),
        ],
    )
    def test_arrays_and_objects_over_several_lines(
        self, tmp_path: Path, name: str, text: str, expected: list[str]
    ) -> None:
        source = open_text(tmp_path / name, text)
        assert prompts(source) == expected
        assert source.unit == "entry"

    @pytest.mark.parametrize("name", ["in.json", "in.txt"])
    def test_objects_line_by_line_stay_lines(self, tmp_path: Path, name: str) -> None:
        source = open_text(tmp_path / name, '{"prompt": "a"}\n{"prompt": "b"}\n')
        assert (source.form, prompts(source)) == (PromptFormat.JSONL, ["a", "b"])

    @pytest.mark.parametrize("text", ["[[say: hello]]\nworld\n", "[draft] a title\n", "{not json}\n", "[1, 2, 3\n"])
    def test_plain_prompts_may_begin_with_a_bracket(self, tmp_path: Path, text: str) -> None:
        assert prompts(open_text(tmp_path / "in.txt", text)) == text.splitlines()

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("in.txt", '[\n{"prompt": "a"},\n', "begins like JSON"),
            ("in.txt", "{\nprompt: a\n}\n", "begins like JSON"),
            ("in.json", '[{"prompt": "a"},,]', "begins like JSON"),
            ("in.json", "[1, 2]", "array of objects and texts"),
            ("in.json", '[{"prompt": NaN}]', "NaN"),
        ],
    )
    def test_other_documents_are_refused_with_their_name(
        self, tmp_path: Path, name: str, text: str, words: str
    ) -> None:
        with pytest.raises(InputUnreadable, match=words) as refused:
            open_text(tmp_path / name, text)
        assert name in str(refused.value)

    def test_entries_are_found_again_by_a_second_start(self, tmp_path: Path) -> None:
        texts = ('["a", "b"]', '[\n "a",\n "b"\n]')
        digests = []
        for text in texts:
            source = open_text(tmp_path / "in.json", text)
            digests.append([source.digest(line) for line in source.lines()])
        assert digests[0] == digests[1]


class TestErrorsAsWritten:
    @pytest.mark.parametrize(
        ("line", "options", "expected"),
        [
            ("not json", OPTIONS, "not JSON: Expecting value at column 1"),
            ('{"prompt": 5}', OPTIONS, "prompt must be a string or a list"),
            ('{"prompt": ""}', OPTIONS, "prompt must not be empty"),
            ('{"prompt": "x", "system": 5}', OPTIONS, "system must be a string or a list"),
            ('{"prompt": "", "system": "Be terse."}', OPTIONS, "prompt must not be empty"),
            (
                '{"messages": [{"role": "user", "content": 5}]}',
                BatchOptions(fields={}, system="Be terse.", owner="local"),
                "messages[0].content must be a string or a list",
            ),
        ],
    )
    def test_names_are_those_of_the_line(self, tmp_path: Path, line: str, options: BatchOptions, expected: str) -> None:
        assert failure(tmp_path / "in.jsonl", line, options).message == expected

    def test_unknown_options_are_known_by_name(self, tmp_path: Path) -> None:
        source = open_text(tmp_path / "in.jsonl", '{"prompt": "x", "temperatur": 0, "id": 1, "seed": 3}\n')
        (item,) = [source.parse(line) for line in source.lines()]
        assert isinstance(item, BatchPrompt)
        assert item.unknown_fields == ("temperatur",)


class TestPipes:
    def test_a_pipe_is_read_as_often_as_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_text, args=("one\ntwo\n",))
        writer.start()
        source = BatchInput(path, PromptFormat.AUTO, OPTIONS, 1000)
        writer.join()
        assert prompts(source) == prompts(source) == ["one", "two"]

    @pytest.mark.parametrize("path", ["/dev/null", "pipe"])
    def test_an_output_that_is_no_file_is_refused(self, tmp_path: Path, path: str) -> None:
        if path == "pipe":
            os.mkfifo(tmp_path / path)
        with pytest.raises(BatchError, match="use - for standard output"):
            BatchOutput(tmp_path / path)

    def test_results_on_a_stream_are_whole_lines(self) -> None:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with StreamOutput(stream, "run") as output:
            output.append({"line": 2, "response": "Grüße", "digest": "0" * 32})
        assert json.loads(stream.buffer.getvalue())["response"] == "Grüße"
        assert output.done.count == 1
