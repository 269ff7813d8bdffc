"""What an answer says about itself: while it waits, at its end, and where it was made."""

import pytest

from tests.browser.browser import Browser, ChatPage, running_browser
from tests.live_stack import LiveStack

STATES = [
    ({"state": "queued"}, "Waiting in line"),
    ({"state": "queued", "position": 2, "wait_s": 8.2}, "2nd in line, about 8 s"),
    ({"state": "queued", "position": 21, "wait_s": 0.2}, "21st in line, about 1 s"),
    ({"state": "retrieving"}, "Searching your memories"),
    ({"state": "waiting_for_gpu", "reason": "transcription"}, "the CPU is working meanwhile (transcription)"),
    ({"state": "loading"}, "Loading the model"),
    ({"state": "summarizing", "progress": 0.5}, "Reading your long message in parts, 50%"),
    ({"state": "prefill"}, "Reading your prompt"),
    ({"state": "prefill", "progress": 0.4}, "Reading your prompt, 40%"),
    ({"state": "yielding"}, "Moving to another processor"),
]
SOURCES: list[dict[str, object]] = [
    {"label": "1", "kind": "transcript", "title": "A call", "speaker": "Sarah", "start_time": 75, "text": "On Friday."},
    {"label": "2", "kind": "note", "title": "A note", "text": "On Monday."},
]
GERMAN_ERRORS = [
    (
        {"code": "queue_full", "message": "full"},
        "Es warten zu viele andere. Versuchen Sie es in 1 Sekunde noch einmal.",
    ),
    ({"code": "timeout", "message": "late"}, "Die Antwort hat länger gedauert als erlaubt und wurde beendet."),
    (
        {"code": "context_overflow", "message": "long", "prompt_tokens": 70_000, "context_size": 8192},
        "Das ist zu lang für das Modell: 70.000 Token oder mehr passen nicht in seinen Kontext von 8.192.",
    ),
    ({"code": "context_overflow", "message": "too long"}, "Too long"),
    ({"code": "unheard_of", "message": "something new"}, "Something new"),
]


def begin(page: ChatPage) -> None:
    page.script_next_answer()
    page.ask("well?", wait=False)


def end(page: ChatPage, **line: object) -> None:
    page.push(done=True, **line)
    page.wait_for_end()


def test_each_state_has_its_sentence(page: ChatPage) -> None:
    begin(page)
    for status, sentence in STATES:
        page.push(status=status)
        page.until(lambda sentence=sentence: page.one(".answer .status").text.endswith(sentence), what=sentence)  # type: ignore[misc]
    page.push(token="a word")
    page.until(lambda: not page.one(".answer .status").is_displayed(), what="text takes its place")
    end(page)


def test_the_quiet_line(page: ChatPage) -> None:
    begin(page)
    page.push(token="moved")
    end(
        page,
        model="gemma",
        devices=[{"device": "cpu", "tokens": 10}, {"device": "gpu", "tokens": 91}],
        usage={"completion_tokens": 101, "history": {"messages_left_out": 4, "messages_summarized": 4}},
        timings={"decode": 4000, "first_token": 40},
    )
    assert page.one(".facts").text == "gemma · CPU → GPU · 25 tokens/s · 101 tokens · first token after 0.04 s"
    assert "The 4 oldest messages were read as a summary." in page.one(".answer footer").text
    begin(page)
    page.push(token="x")
    end(page, model="gemma", devices=[{"device": "cpu", "tokens": 1}], usage={"completion_tokens": 1})
    assert page.one(".facts").text == "gemma · CPU · 1 token"


def test_what_was_cited_is_marked(page: ChatPage) -> None:
    begin(page)
    page.push(token="On Friday [1]. Not `[1]`, nor [3].")
    end(page, sources=[{**SOURCES[0], "cited": True}, {**SOURCES[1], "cited": False}])
    assert page.texts(".markdown .citation") == ["1"]
    assert page.texts(".sources .chip") == ["1\nSarah", "2\nA note"]
    assert page.texts(".sources .chip.cited") == ["1\nSarah"]
    for number, expected in ((0, "The answer cites this source."), (1, "the answer does not cite it.")):
        page.all(".sources .chip")[number].click()
        assert expected in page.one("#source-dialog[open]").text
        page.one("#source-dialog .icon-button").click()
    page.all(".sources .chip")[0].click()
    assert page.one("#source-dialog .facts").text == "A call · Sarah · at 1:15"


def test_a_search_that_finds_nothing_is_no_secret(page: ChatPage) -> None:
    begin(page)
    page.push(status={"state": "retrieving"})
    page.push(token="no idea")
    end(page, sources=[])
    assert "No memory fits this question." in page.one(".answer footer").text
    begin(page)
    page.push(status={"state": "retrieving"})
    end(page, sources=[], rag_error="the store is away")
    assert "Memories could not be searched: the store is away" in page.one(".answer footer").text
    assert "No memory" not in page.one(".answer footer").text


@pytest.fixture(scope="module")
def german(chromium: str) -> "Browser":  # type: ignore[misc]
    with running_browser(chromium, language="de-DE") as browser:
        yield browser


@pytest.mark.parametrize(("error", "sentence"), GERMAN_ERRORS)
def test_an_error_is_in_the_language_of_the_page(
    german: Browser, service: LiveStack, error: dict[str, object], sentence: str
) -> None:
    page = ChatPage(german, service.url).open()
    begin(page)
    end(page, error=error)
    assert page.one(".answer .end.error").text == sentence
