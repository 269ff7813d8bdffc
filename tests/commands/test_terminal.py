"""Output of an answer on a terminal and in a file."""

import io

import pytest

from chat.management.terminal import STATES, AnswerPrinter, source_text, status_text
from inference.enums import StreamState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def token(text: str) -> dict[str, object]:
    return {"token": text, "done": False}


def test_a_file_gets_the_answer_as_it_is_and_nothing_else() -> None:
    out, info = io.StringIO(), io.StringIO()
    printer = AnswerPrinter(out, info)
    printer.line({"token": "", "done": False, "status": {"state": "queued", "position": 2}})
    for text in ("A\x1b[31m", " b", ""):
        printer.line(token(text))
    printer.line({"token": ".", "done": True})
    assert out.getvalue() == "A\x1b[31m b.\n"
    assert info.getvalue() == ""


def test_escape_sequences_of_an_answer_do_not_reach_a_terminal() -> None:
    out = Terminal()
    printer = AnswerPrinter(out, io.StringIO())
    printer.line(token("\x1b]0;owned\x07\x9b2J\rok\tfine\nnext"))
    assert "\x1b" not in out.getvalue()
    assert "\x9b" not in out.getvalue()
    assert "\r" not in out.getvalue()
    assert "ok\tfine\nnext" in out.getvalue()


def test_a_status_is_wiped_before_the_first_token() -> None:
    info = Terminal()
    printer = AnswerPrinter(io.StringIO(), info)
    printer.line({"token": "", "done": False, "status": {"state": "prefill", "progress": 0.4}})
    assert info.getvalue().endswith("reading the prompt, 40 % ...")
    printer.line(token("x"))
    assert info.getvalue().endswith("\r\x1b[K")


def test_a_status_in_the_middle_of_a_line_does_not_wipe_the_answer() -> None:
    info = Terminal()
    printer = AnswerPrinter(Terminal(), info)
    printer.line(token("half a sentence"))
    printer.line({"token": "", "done": False, "status": {"state": "yielding"}})
    assert info.getvalue() == ""


@pytest.mark.parametrize(("texts", "printed"), [(["a"], "a\n"), (["a\n"], "a\n"), ([], "")])
def test_the_last_line_is_ended_once(texts: list[str], printed: str) -> None:
    out = io.StringIO()
    printer = AnswerPrinter(out, io.StringIO())
    for text in texts:
        printer.line(token(text))
    printer.line({"token": "", "done": True})
    printer.close()
    assert out.getvalue() == printed


def test_sources_are_listed_with_what_is_known_of_them() -> None:
    info = io.StringIO()
    AnswerPrinter(io.StringIO(), info).sources(
        [
            {
                "label": "1",
                "speaker": "Sarah",
                "time": "today",
                "emotion": "calm",
                "text": "no\n\x1b[2J",
                "cited": True,
            },
            {"label": "2", "start_time": 12.4},
        ]
    )
    assert "*[1] Sarah, today, calm: no \N{REPLACEMENT CHARACTER}[2J\n" in info.getvalue()
    assert " [2] at 12 s: \n" in info.getvalue()


def test_no_sources_no_heading() -> None:
    info = io.StringIO()
    AnswerPrinter(io.StringIO(), info).sources([])
    assert info.getvalue() == ""


def test_a_summary_is_for_people_only() -> None:
    line = {"usage": {"completion_tokens": 5}, "finish_reason": "stop", "timings": {"first_token": 120.0}}
    info, file = Terminal(), io.StringIO()
    AnswerPrinter(io.StringIO(), info).summary(line)
    AnswerPrinter(io.StringIO(), file).summary(line)
    assert info.getvalue() == "(5 tokens, stop, first token after 120 ms)\n"
    assert file.getvalue() == ""


def test_a_state_of_a_later_version_is_shown_by_its_name() -> None:
    assert status_text({"state": "resting", "reason": "why not"}) == "resting, why not ..."


def test_a_source_without_anything() -> None:
    assert source_text({}) == " [] "


def test_every_state_of_a_stream_has_a_text() -> None:
    assert set(STATES) == set(StreamState)
    for state in StreamState:
        assert status_text({"state": state.value, "position": 2}) == f"{STATES[state]}, place 2 ..."
