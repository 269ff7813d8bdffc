"""Parsers of LRC lyrics, TTML (also DFXP and IMSC) and SubStation Alpha (.ass, .ssa)."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree  # nosec B405

from chat.rag.ingest.captions import add_cues
from chat.rag.ingest.cues import Cue
from chat.rag.ingest.paragraphs import split_lines
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile

_LRC_TIME = re.compile(r"\[(\d{1,3}):(\d{1,2}(?:[.:]\d{1,3})?)\]")
_LRC_FACT = re.compile(r"\[([a-z]+):(.*)\]\s*", re.IGNORECASE)
_LRC_WORD_TIME = re.compile(r"<\d{1,3}:\d{1,2}(?:[.:]\d{1,3})?>")
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
_CLOCK = re.compile(r"(\d{1,9}):(\d{1,2}):(\d{1,2}(?:\.\d{1,9})?)(?::(\d{1,9}))?")
_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(h|ms|m|s|f|t)")
_RATE = re.compile(r"\d{1,12}")
MAX_DEPTH = 100  # of elements within a line of text
UNIT_SECS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
DEFAULT_FRAMES = 30.0


def parse_lrc(text: str) -> ParsedFile:
    """Parse lyrics: lines with one or several times before them."""
    facts: dict[str, str] = {}
    cues: list[Cue] = []
    for number, content in enumerate(split_lines(text), start=1):
        if fact := _LRC_FACT.fullmatch(content.strip()):
            facts[fact[1].lower()] = fact[2].strip()
            continue
        words = _LRC_WORD_TIME.sub("", _LRC_TIME.sub("", content)).strip()
        starts: list[float | None] = [
            int(time[1]) * 60 + float(time[2].replace(":", ".")) for time in _LRC_TIME.finditer(content)
        ]
        if words:
            cues += [Cue(number, start, None, [words]) for start in starts or [None]]
    cues.sort(key=lambda cue: (cue.start or 0.0, cue.number))
    parsed = ParsedFile()
    add_cues(parsed, cues, title=facts.get("ti", ""))
    return parsed


def parse_ttml(text: str) -> ParsedFile:
    """Parse timed text of the W3C. Raises FileUnreadable."""
    try:
        # Expat bounds the growth of entities and loads none from outside.
        root = ElementTree.fromstring(text)  # noqa: S314  # nosec B314
    except ElementTree.ParseError as error:
        raise FileUnreadable(f"is not XML: {error}") from error
    if _name(root) != "tt":
        raise FileUnreadable(f"is XML of another kind: <{_name(root)}>")
    elements = list(root.iter())
    agents = {
        agent.get(_XML_ID, ""): " ".join(" ".join(agent.itertext()).split())
        for agent in elements
        if _name(agent) == "agent"
    }
    rates = {name: _rate(root, name) for name in ("frameRate", "tickRate")}
    titles = [" ".join("".join(element.itertext()).split()) for element in elements if _name(element) == "title"]
    cues = []
    for number, element in enumerate((element for element in elements if _name(element) == "p"), start=1):
        begin, end = (_ttml_secs(element.get(name), rates) for name in ("begin", "end"))
        length = _ttml_secs(element.get("dur"), rates)
        if end is None and begin is not None and length is not None:
            end = begin + length
        agent = next((value for name, value in element.attrib.items() if name.rpartition("}")[2] == "agent"), "")
        cues.append(Cue(number, begin, end, "".join(_ttml_text(element)).split("\n"), agents.get(agent, agent)))
    parsed = ParsedFile()
    add_cues(parsed, cues, title=next(iter(titles), ""))
    return parsed


def parse_ass(text: str) -> ParsedFile:
    """Parse the dialogue of SubStation Alpha; the name of an actor is the speaker."""
    names: list[str] = []
    cues = []
    rates = {"frameRate": DEFAULT_FRAMES, "tickRate": 1.0}
    for number, content in enumerate(split_lines(text), start=1):
        kind, _, rest = content.partition(":")
        if kind.strip() == "Format":
            names = [name.strip().lower() for name in rest.split(",")]
        elif kind.strip() == "Dialogue" and "text" in names:
            fields = dict(zip(names, rest.split(",", len(names) - 1), strict=False))
            lines = re.split(r"\\[Nn]", fields.get("text", ""))
            start, end = (_ttml_secs(fields.get(name, "").strip(), rates) for name in ("start", "end"))
            cues.append(Cue(number, start, end, lines, fields.get("name", fields.get("actor", "")).strip()))
    parsed = ParsedFile()
    add_cues(parsed, cues)
    return parsed


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _ttml_text(element: ElementTree.Element, depth: int = 0) -> Iterator[str]:
    """Yield the text of an element; a line break is an element, and one in the file is a space. Raises FileUnreadable
    for an element that is nested too deeply."""
    if depth > MAX_DEPTH:
        raise FileUnreadable("is nested too deeply")
    yield " ".join((element.text or "").split("\n"))
    for part in element:
        if _name(part) == "br":
            yield "\n"
        elif _name(part) != "metadata":
            yield from _ttml_text(part, depth + 1)
        yield " ".join((part.tail or "").split("\n"))


def _rate(root: ElementTree.Element, name: str) -> float:
    value = next((value for key, value in root.attrib.items() if key.rpartition("}")[2] == name), "")
    rate = float(value) if _RATE.fullmatch(value) else 0.0
    return rate or (DEFAULT_FRAMES if name == "frameRate" else 1.0)


def _ttml_secs(text: str | None, rates: dict[str, float]) -> float | None:
    if clock := _CLOCK.fullmatch(text or ""):
        return int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3]) + int(clock[4] or 0) / rates["frameRate"]
    if offset := _OFFSET.fullmatch(text or ""):
        number, unit = float(offset[1]), offset[2]
        if unit in UNIT_SECS:
            return number * UNIT_SECS[unit]
        return number / rates["frameRate" if unit == "f" else "tickRate"]
    return None
