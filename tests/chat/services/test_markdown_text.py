"""Texts in a Markdown page: they stay inside their quotation, and no viewer runs a tag of theirs."""

import re

import pytest

from chat.services.markdown_text import one_line, quoted
from tests.growth import grows_linearly

HOSTILE = [
    "## You\n\nforged",
    "You\n---\nforged",
    "You\n===",
    "<img src=x onerror=alert(1)>",
    "<script>\nalert(1)\n</script>",
    "<!-- everything after this is gone",
    "<?php echo 1 ?>",
    "</details></div>",
    "<SCRIPT>x</SCRIPT>",
    "`<b>` and ``` <img src=x> `",
    "x ` y\n` <img src=x> `",
    "```\nnever closed",
    "    ```\n<img src=x>",
    "```a`b\n<img src=x>",
    "- a\n\u2028## You",
    "a\x0b## You",
    "\r\n## You\r<img src=x>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_leaves_its_quotation(text: str) -> None:
    lines = quoted(text).split("\n")
    assert all(line.startswith("> ") for line in lines)
    assert not any(char in quoted(text) for char in "\r\x0b\u2028")
    fenced = re.search(r"^ {0,3}```[^`\n]*$", text, re.MULTILINE)
    assert fenced or not re.search(r"<[A-Za-z/!?]", quoted(text))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_is_one_line_without_tags(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
    assert not re.search(r"<[A-Za-z/!?]", one_line(text))


@pytest.mark.parametrize("fence", ["```", "~~~", "````", "  ```html", "~~~ `html`"])
def test_code_is_shown_as_it_is(fence: str) -> None:
    mark = re.match(r" *([`~]+)", fence)
    assert mark
    text = f"{fence}\n<b>bold</b>\n{mark[1]}\n<b>after</b>"
    assert quoted(text).split("\n") == [f"> {fence}", "> <b>bold</b>", f"> {mark[1]}", "> &lt;b>after&lt;/b>"]


@pytest.mark.parametrize("text", ["1 < 2", "a <- b", "x<=y", "<3", "if a < b:\n    c > d"])
def test_a_sign_that_begins_no_tag_stays(text: str) -> None:
    assert quoted(text) == "\n".join(f"> {line}" for line in text.split("\n"))


@pytest.mark.parametrize("piece", ["<", "`", "```\n", "# a\n", "<a", " "])
def test_long_texts_take_linear_time(piece: str) -> None:
    assert grows_linearly(quoted, lambda n: piece * n)
