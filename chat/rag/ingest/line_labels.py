"""Labels at the beginning of lines, which name the speaker or the time or both.

Sarah: text               [Sarah] text              **Sarah:** text           **Sarah**: text
[00:15] Sarah: text       00:15 Sarah: text         Sarah (00:15): text       [00:15 - 00:20] text
05.03.24, 13:05 - Sarah: text                       [05.03.24, 13:05:00] Sarah: text
Sarah  0:15               [00:15] Sarah             Sarah:                    (the text is on the next lines)
"""

import re
from dataclasses import dataclass, replace
from datetime import datetime, time

from django.utils import timezone

from chat.rag.numeric_dates import numeric_date

MAX_NAME_WORDS = 5
PARTICLES = {"al", "bin", "da", "de", "den", "der", "di", "du", "la", "le", "van", "von", "y"}
# What recognisers and note takers write where names are.
NO_NAMES = frozenset(
    """music applause laughter laughs silence inaudible crosstalk noise cheering coughs pause musik applaus gelächter
    beifall música aplausos risas musique applaudissements rires date time attendees participants present subject agenda
    location duration recording transcript note notes topic title summary datum teilnehmer anwesend ort thema fecha
    asistentes lieu participantes présents objet absent apologies action actions decision decisions todo risks next
    chapter question answer warning example url http https source language 日期 时间 地点 主题 参会人 出席 议题 音乐
    掌声 笑声 备注 日時 場所 出席者 参加者 議題 件名 音楽 拍手 笑い التاريخ الوقت المكان الحضور الموضوع
    موسيقى تصفيق дата время участники тема музыка аплодисменты""".split()  # noqa: SIM905  a column of quotes reads worse
)
_CLOCK = r"(?:\d{1,3}:)?\d{1,2}:\d{2}(?:[.,]\d{1,3})?"
_RANGE = rf"{_CLOCK}(?:\s*(?:-->|[-\u2013\u2014])\s*{_CLOCK})?"
_BULLET = re.compile(r"^\s*(?:[-\u2013>]+\s*|[*\u2022]\s+)?")
_CHAT_TIME = re.compile(
    r"[\u200e\u200f]?\[?(?P<date>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}),?\s+"
    r"(?P<hour>\d{1,2})[:.](?P<minute>\d{2})(?:[:.](?P<second>\d{2}))?\s?(?P<half>[AaPp]\.?\s?[Mm]\.?)?\]?"
    r"(?:\s+[-\u2013]\s+|\s+|:\s+)"
)
_CLOCK_BEFORE = re.compile(rf"(?:(?P<bracket>[\[(]){_RANGE}[\])]|{_RANGE})(?=\s|$)[ \t]*(?:[-\u2013|][ \t]+)?")
_BOLD = re.compile(r"(\*{1,3}|_{2})(?=\S)([^*\n]{1,80}?)\1")
_BRACKETED = re.compile(r"\[([^\[\]\n]{1,60})\]:?\s+(?=\S)")
_NAME = r"([^:\uff1a\n]{1,60}?)"
_GAP = r"\s{0,8}"  # bounded: a name may end in blanks, too
_CLOCK_AFTER = re.compile(rf"{_NAME}{_GAP}[\[(]({_RANGE})[\])]\s*(?:[:\uff1a]\s*|$)")
_CLOCK_AT_END = re.compile(rf"{_NAME}(?=\s){_GAP}({_CLOCK})\s*")
_WITH_COLON = re.compile(rf"{_NAME}{_GAP}(?::(?:\s+|$)|\uff1a\s*)")
_SENDER = re.compile(r"From\s{1,8}(.{1,80}?)\s{1,8}to\s.+", re.IGNORECASE)  # of a chat beside a conference
_PHONE = re.compile(r"\+?[\d\s()-]{7,20}")


@dataclass(frozen=True, kw_only=True)
class Label:
    """``rest`` is the text beside the label; ``name`` is empty for a time alone. ``date`` is as it is written.

    ``may_be_hour``: the only time is like that of an agenda, "10:30".
    """

    name: str
    rest: str
    start_secs: float | None = None
    end_secs: float | None = None
    date: str = ""
    hour: time = time()
    may_be_hour: bool = False

    @property
    def has_time(self) -> bool:
        return self.start_secs is not None or bool(self.date)

    def said_at(self, *, day_first: bool) -> datetime | None:
        """Return the time of a message, in GEMMA_TIME_ZONE; None without a date."""
        day = numeric_date(self.date, day_first=day_first) if self.date else None
        return datetime.combine(day, self.hour, timezone.get_default_timezone()) if day else None


def label_of(line: str) -> Label | None:
    """Return the label of a line, None for a line without one."""
    line = _BULLET.sub("", line, count=1)
    line = _BOLD.sub(r"\2", line, count=1) if _BOLD.match(line) else line
    if chat := _CHAT_TIME.match(line):
        label = Label(name="", rest=line[chat.end() :], date=chat["date"], hour=_hour(chat))
        if label.said_at(day_first=True):
            return _with_name(label, label.rest)
    if clock := _CLOCK_BEFORE.match(line):
        start, end = _range(clock[0])
        may_be_hour = not clock["bracket"] and clock[0].count(":") == 1
        label = Label(
            name="", rest=line[clock.end() :].strip(), start_secs=start, end_secs=end, may_be_hour=may_be_hour
        )
        rest = _BOLD.sub(r"\2", label.rest, count=1) if _BOLD.match(label.rest) else label.rest
        named = _with_name(label, rest)
        return named if named.name or not label.rest or not may_be_hour else None
    named = _with_name(Label(name="", rest=line), line)
    return named if named.name else None


def _with_name(label: Label, text: str) -> Label:
    """Return the label with the name at the beginning of ``text``, or as it is when there is none."""
    if bracketed := _BRACKETED.match(text):
        name = _checked(bracketed[1], label)
        return replace(label, name=name, rest=text[bracketed.end() :]) if name else label
    if not label.has_time and (clock := _CLOCK_AFTER.match(text) or _CLOCK_AT_END.fullmatch(text)):
        start, end = _range(clock[2])
        timed = replace(label, start_secs=start, end_secs=end)
        name = _checked(clock[1], timed)
        return replace(timed, name=name, rest=text[clock.end() :].strip()) if name else label
    if colon := _WITH_COLON.match(text):
        name = _checked(colon[1], label)
        return replace(label, name=name, rest=text[colon.end() :].strip()) if name else label
    if label.start_secs is not None and (name := _checked(text, replace(label, start_secs=None))):
        return replace(label, name=name, rest="")
    return label


def _checked(text: str, label: Label) -> str:
    """Return ``text`` as a name, "" when it can be none; beside a time a user name in lower case is one, too."""
    if sender := _SENDER.fullmatch(text.strip()):
        text = sender[1]
    words = text.strip("~\u200e\u202a\u202c *_").split()
    name = " ".join(words)
    if label.date and _PHONE.fullmatch(name):
        return name
    if not 1 <= len(words) <= MAX_NAME_WORDS or not name[0].isalpha() or name.casefold() in NO_NAMES:
        return ""
    if re.fullmatch(r"(?i)(?:speaker|sprecher|interlocuteur|hablante|spk)[ _-]?\w{1,3}", name) or label.date:
        return name
    if label.has_time and len(words) == 1:
        return name
    # Scripts without upper case have no lower case either.
    is_capitalised = all(not word[0].islower() or word in PARTICLES for word in words) and not words[-1][0].islower()
    return name if is_capitalised else ""


def _range(text: str) -> tuple[float, float | None]:
    secs = [_secs(clock) for clock in re.findall(_CLOCK, text)]
    return secs[0], secs[1] if len(secs) > 1 else None


def _secs(clock: str) -> float:
    total = 0.0
    for part in clock.replace(",", ".").split(":"):
        total = total * 60 + float(part)
    return total


def _hour(match: re.Match[str]) -> time:
    hour = int(match["hour"])
    if match["half"]:
        hour = hour % 12 + (12 if match["half"].lower().startswith("p") else 0)
    try:
        return time(hour, int(match["minute"]), int(match["second"] or 0))
    except ValueError:
        return time()
