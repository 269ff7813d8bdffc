"""Attribution of the sentences of an answer to the sources that it was shown, for models that write no labels.

A sentence belongs to a source that has most of its words, and all its numbers and names. The words of the question
count little, since every answer repeats them. Knows no models; the text of the answer is not changed.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from chat.local_time import local
from chat.rag.search.negation import negates
from chat.rag.search.stop_words import GERMAN, stop_words_for
from chat.rag.search.terms import names_in
from chat.rag.sources import parse_time
from chat.rag.words import IS_UNSPACED, bare, with_variants, words
from inference.engine.text.citation_filter import citation_labels

# Shares of a sentence's word weight that a source has to have; measured with bench.citations.
MIN_SHARE, MIN_SHARE_WITHOUT_NEWS = 0.65, 0.8
MIN_WORDS, MIN_WORDS_WITHOUT_NEWS = 2, 3
WEIGHT_IN_QUESTION = 0.6
MAX_SENTENCES = 400
_SENTENCE = re.compile(
    r"[^\n]*?(?:(?<![.!?\u061f\u06d4])[.!?\u061f\u06d4]++[\"'\u201d\u00bb)\]]*+(?=\s|$)|[\u3002\uff01\uff1f]+|(?=\n)|$)"
)
_FENCED = re.compile(r"```.*?(?:```|$)", re.DOTALL)
_LABELS = re.compile(r"\[[\d ,;\u2013-]+\]")
_LIST_MARK = re.compile(r"\s{0,20}(?:\d{1,3}[.)]|[-*\u2022#>]{1,20})\s+")
# A sentence about what the sources lack claims nothing that they have.
_UNKNOWN = re.compile(
    r"\b(?:not|n't|no|none|nothing|without)\b[^.]{0,40}\b(?:mention|specif|state|provid|contain|inform|detail|know|found"
    r"|find|memor|record|clear|available|context)"
    r"|\b(?:nicht|kein\w*)\b[^.]{0,40}\b(?:erwahn|genann|angegeb|inform|bekannt|enthalt|weiss|wissen|hervor|gefunden)"
    r"|\bno\b[^.]{0,40}\b(?:mencion|indic|especific|inform|contien|se sabe|encontr)"
    r"|\b(?:pas|aucune?)\b[^.]{0,40}\b(?:mention|precis|inform|indiqu|contien|sais|trouv)"
    r"|没有(?:提到|说明|信息|记录)|不知道|未提及|わかりません|言及されて|記載があ?り?ません|情報がありません"
    r"|لا (?:توجد|اعرف|يوجد)|لم (?:يذكر|يرد)"
)
# The first word of a sentence is capitalised in any case.
_SAYING = re.compile(
    r"(?<!\w)([^\W\d_]\w*(?: [^\W\d_]\w*)?) (?:(?:has|had|also|hat|ha|a) )?"
    r"(?:said|says|told|tells|mention\w*|asked|asks|wants?|wanted|thinks?|thought|suggest\w*|agree[ds]?|explain\w*|promised"
    r"|sagte?|gesagt|meinte?|erwähn\w*|fragte?|dijo|dicho|menciona?\w*|pregunt\w*|dit|mentionn\w*|demand\w*)\b"
)
GERMAN_WORDS, MIN_GERMAN_WORDS = frozenset(words(GERMAN)), 2


@dataclass(frozen=True)
class Attribution:
    """The characters from ``start`` to ``end`` of an answer rest on the source with this label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class _Evidence:
    """The words of a source, of its speaker, its title and its time."""

    label: str
    forms: frozenset[str]
    negates: bool

    @classmethod
    def of(cls, source: Mapping[str, Any]) -> "_Evidence":
        text = str(source.get("text") or "")
        moment = parse_time(str(source.get("time") or ""))
        day = f"{local(moment):%d %B %Y %A %H:%M} {local(moment).day}" if moment else ""
        whole = " ".join((text, str(source.get("speaker") or ""), str(source.get("title") or ""), day))
        return cls(str(source.get("label") or ""), _forms(whole), negates(text))


def attributions(answer: str, sources: Sequence[Mapping[str, Any]], question: str = "") -> list[Attribution]:
    """Return the sentences of ``answer`` that a source supports, in order; those with the right label are left out."""
    evidence = [_Evidence.of(source) for source in sources if source.get("label")]
    if not evidence:
        return []
    n_with = Counter(form for item in evidence for form in item.forms)
    weights = {form: math.log1p((len(evidence) - n + 0.5) / (n + 0.5)) + 0.5 for form, n in n_with.items()}
    in_question = _forms(question)
    result = []
    for start, end in _sentences(answer):
        sentence = answer[start:end]
        label = _supporting(_LABELS.sub("", sentence), evidence, weights, in_question)
        if label and label not in map(str, citation_labels(sentence)):
            result.append(Attribution(start, end, label))
    return result


def _supporting(
    sentence: str, evidence: Sequence[_Evidence], weights: Mapping[str, float], in_question: frozenset[str]
) -> str:
    """Return the label of the source that supports the sentence best, "" when none does."""
    distinct = list(dict.fromkeys(words(sentence)))
    stop_words = stop_words_for(distinct)
    content = [word for word in distinct if word not in stop_words]
    if not content or _UNKNOWN.search(bare(sentence)):
        return ""
    required = {word for word in content if any(map(str.isdigit, word))} | _names(sentence, distinct, stop_words)
    # A word that no source has weighs as much as the rarest one; sources may be without words.
    highest = max(weights.values(), default=1.0)
    weight_of = {
        word: weights.get(word, highest) * (WEIGHT_IN_QUESTION if word in in_question else 1.0) for word in content
    }
    total, best, label = sum(weight_of.values()), 0.0, ""
    for item in evidence:
        matched = [word for word in content if not item.forms.isdisjoint(with_variants(word))]
        if not required.issubset(matched) or (negates(sentence) and not item.negates):
            continue
        n_words = len(matched) // 2 if IS_UNSPACED.match(content[0]) else len(matched)
        share = sum(weight_of[word] for word in matched) / total
        has_news = any(word not in in_question for word in matched)
        is_enough = (
            share >= MIN_SHARE and n_words >= MIN_WORDS
            if has_news
            else share >= MIN_SHARE_WITHOUT_NEWS and n_words >= MIN_WORDS_WITHOUT_NEWS
        )
        if is_enough and share > best:
            best, label = share, item.label
    return label


def _names(sentence: str, distinct: list[str], stop_words: Set[str]) -> set[str]:
    """Return the names that a source has to have, too; in German every noun is written like one."""
    speaker = _SAYING.match(sentence)
    names = set(words(speaker[1])) if speaker else set()
    if len(GERMAN_WORDS.intersection(distinct)) < MIN_GERMAN_WORDS:
        names |= names_in(sentence)
    return names.intersection(distinct) - stop_words


def _forms(text: str) -> frozenset[str]:
    return frozenset(form for word in words(text) for form in with_variants(word))


def _sentences(answer: str) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each sentence outside of code, without the mark of a list."""
    # Of the same length, so that places stay right.
    plain = _FENCED.sub(lambda match: "\n" * len(match[0]), answer)
    for n_sentences, match in enumerate(_SENTENCE.finditer(plain)):
        if n_sentences >= MAX_SENTENCES:
            return
        mark = _LIST_MARK.match(match[0])
        start = match.start() + (mark.end() if mark else len(match[0]) - len(match[0].lstrip()))
        end = match.start() + len(match[0].rstrip())
        if start < end:
            yield start, end
