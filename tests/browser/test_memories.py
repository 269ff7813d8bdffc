"""Memories in the browser: written, imported, searched, deleted; and the sources of an answer."""

from pathlib import Path

import httpx
import pytest

from tests.browser.browser import ChatPage
from tests.live_stack import wait_until

CAPTIONS = """1
00:00:01,000 --> 00:00:04,000
Sarah: The zeppelin lands on Friday.

2
00:01:15,500 --> 00:01:18,000
Tom: Then we bake the cake on Thursday.
"""


@pytest.fixture
def memories(page: ChatPage) -> ChatPage:
    """The memories page of a store that is empty for this test."""
    listed = httpx.get(f"{page.url}/memory/list?limit=500").json()["memories"]
    for note in listed:
        httpx.delete(f"{page.url}/memory/{note['memory_id']}")
    for one in httpx.get(f"{page.url}/transcripts/recent?limit=500").json()["transcripts"]:
        httpx.delete(f"{page.url}/transcript/{one['job_id']}")
    page.click("#memories-link")
    page.until(lambda: bool(page.all(".empty-note")), what="the page says that there are none")
    return page


def upload(page: ChatPage, selector: str, *paths: Path) -> None:
    page.all(selector)[0].send_keys("\n".join(map(str, paths)))


def cards(page: ChatPage) -> list[str]:
    return [element.text for element in page.all("#memory-list .card")]


def test_a_note_is_written_and_deleted_with_a_way_back(memories: ChatPage) -> None:
    memories.click("#memory-add summary")
    memories.one("#memory-body").send_keys("The key is under the mat.\nReally.")
    memories.click("#memory-form .primary")
    memories.until(lambda: "The key is under the mat." in "".join(cards(memories)), what="it is listed")
    memories.click(".card .icon-button")
    memories.until(lambda: not any(cards(memories)), what="it is hidden")
    next(button for button in memories.all(".toast button") if button.text == "Undo").click()
    memories.until(lambda: any(cards(memories)), what="it is back")


def test_files_are_imported_and_found(memories: ChatPage, tmp_path: Path) -> None:
    (tmp_path / "call.srt").write_text(CAPTIONS)
    (tmp_path / "idea.txt").write_text("A submarine with windows.")
    (tmp_path / "bytes.bin").write_bytes(b"\0\1\2")
    upload(memories, "#memory-file", tmp_path / "call.srt", tmp_path / "idea.txt", tmp_path / "bytes.bin")
    memories.until(lambda: len(cards(memories)) == 2, what="a transcript and a note are listed")
    toasts = " ".join(element.text for element in memories.all(".toast"))
    assert "bytes.bin is empty or no text file." in toasts
    transcript = next(card for card in memories.all(".card") if "call" in card.text)
    assert "Sarah, Tom" in transcript.text
    transcript.find_element("css selector", "summary").click()
    memories.until(lambda: "1:15" in transcript.text, what="its lines have their seconds")
    memories.one("#memory-query").send_keys("zeppelin", "\ue007")
    memories.until(lambda: "The zeppelin lands on Friday." in "".join(cards(memories)), what="it is found")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("angles.srt", CAPTIONS + "<" * 400_000),
        ("lines.txt", "\n" * 400_000 + "end"),
        ("blanks.txt", " " * 400_000 + "\n" + " " * 400_000 + "end"),
    ],
)
def test_hostile_files_take_no_time(memories: ChatPage, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    upload(memories, "#memory-file", tmp_path / name)
    memories.until(lambda: bool(memories.all(".toast")), what="the file is imported or refused")
    memories.browser.complaints()  # the browser logs the status of a refusal


def test_sources_open_with_speaker_and_time(memories: ChatPage, tmp_path: Path) -> None:
    (tmp_path / "call.srt").write_text(CAPTIONS)
    upload(memories, "#memory-file", tmp_path / "call.srt")
    memories.until(lambda: len(cards(memories)) == 1, what="it is imported")
    memories.click("#new-chat")
    memories.click("#memories-switch")
    memories.ask("When does the zeppelin land? [[say: On Friday [1], she says.]]")
    cited = memories.one(".sources .chip.cited")
    assert "Sarah" in cited.text
    memories.click(".markdown .citation")
    sheet = memories.one("#source-dialog[open]")
    assert "The zeppelin lands on Friday." in sheet.text
    assert "Sarah" in sheet.text
    assert "at 0:01" in sheet.text
    sheet.find_element("css selector", ".icon-button").click()
    memories.until(lambda: not memories.all("#source-dialog[open]"), what="it is closed")


def test_files_are_imported_by_dropping_them(memories: ChatPage) -> None:
    memories.give_files("#memories-view", "drop", {"call.srt": CAPTIONS, "idea.txt": "A submarine with windows."})
    memories.until(lambda: len(cards(memories)) == 2, what="a transcript and a note are listed")
    assert memories.one("#memory-count").text == "Notes: 1. Transcripts: 1."


def test_a_hit_shows_where_it_is_from_and_is_deleted_with_its_transcript(memories: ChatPage) -> None:
    memories.give_files("#memories-view", "drop", {"call.srt": CAPTIONS})
    memories.until(lambda: len(cards(memories)) == 1, what="it is listed")
    memories.one("#memory-query").send_keys("When do we bake the cake? When does the zeppelin land?\ue007")
    memories.until(lambda: len(cards(memories)) == 2, what="both lines are found")
    hit = next(card for card in cards(memories) if "bake" in card)
    assert "call.srt" in hit
    assert "Tom" in hit
    assert "at 1:15" in hit
    memories.click(".card .icon-button")
    memories.until(lambda: not any(cards(memories)), what="the lines of the transcript are hidden")
    memories.click(".toast [aria-label=Close]")
    memories.one("#memory-query").clear()
    memories.one("#memory-query").send_keys("\ue007")
    memories.until(lambda: memories.one("#memory-count").text == "Notes: 0. Transcripts: 0.", what="it is deleted")


def test_a_deletion_holds_when_the_page_is_left(memories: ChatPage) -> None:
    memories.give_files("#memories-view", "drop", {"idea.txt": "A submarine with windows."})
    memories.until(lambda: len(cards(memories)) == 1, what="it is listed")
    memories.click(".card .icon-button")
    memories.browser.get(f"{memories.url}/static/pages/icon.svg")
    stats = f"{memories.url}/memory/stats"
    wait_until(lambda: httpx.get(stats).json()["memories"] == 0, timeout_secs=15, what="it is deleted")


def test_a_long_note_is_read_whole(memories: ChatPage) -> None:
    memories.give_files("#memories-view", "drop", {"long.txt": "line\n" * 30, "short.txt": "one line"})
    memories.until(lambda: len(cards(memories)) == 2, what="both are listed")
    assert len(memories.all(".card .fold-button")) == 1
    height = "return document.querySelector('.card:has(.fold-button) .text').clientHeight"
    folded = memories.run(height)
    memories.click(".card .fold-button")
    assert memories.run(height) > 4 * folded


def test_more_memories_than_a_page(memories: ChatPage) -> None:
    with httpx.Client(base_url=memories.url) as client:
        for number in range(60):
            client.post("/memory/add", json={"title": f"note {number}", "body": "x"}).raise_for_status()
    memories.open("/?view=memories")
    memories.until(lambda: len(memories.texts(".card")) == 50, what="the newest are listed")
    memories.click("#memory-list .more")
    memories.until(lambda: len(memories.texts(".card")) == 60, what="all are listed")
    assert memories.all("#memory-list .more") == []


def test_a_text_file_is_context(page: ChatPage, tmp_path: Path) -> None:
    (tmp_path / "plan.txt").write_text("The bridge opens in May.")
    upload(page, "#file", tmp_path / "plan.txt")
    page.until(lambda: "plan.txt" in page.one("#attachments").text, what="it is beside the question")
    page.ask("When? [[say: In May [1], it says.]]")
    assert "plan.txt" in page.one(".sources .chip.cited").text
    assert not page.one("#attachments").is_displayed()
    page.click(".answer [aria-label='Answer again']")
    page.until(lambda: page.texts(".versions") == ["2 / 2"], what="there is a second version")
    assert "plan.txt" in page.one(".sources .chip.cited").text


def test_a_file_that_is_too_large_is_refused(page: ChatPage, tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x" * 700_000)
    upload(page, "#file", tmp_path / "large.txt")
    page.until(lambda: "large.txt is larger than 512 kB." in page.toast(), what="the refusal is shown")
