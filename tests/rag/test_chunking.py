"""Texts are cut so that an encoder reads each passage whole, in every script."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.indexing.chunking import MAX_CHARS, split
from chat.rag.vectors import embedding

SENTENCES = {
    "en": "The budget of the project was approved on Monday by the committee. ",
    "de": "Die Übergabe des Gebäudes müssen wir auf übermorgen verschieben. ",
    "ja": "予算は月曜日に委員会で承認されました。",
    "zh": "项目的预算星期一由委员会批准了。",
    "ko": "프로젝트 예산은 월요일에 위원회에서 승인되었습니다. ",
    "ar": "تمت الموافقة على ميزانية المشروع يوم الاثنين من قبل اللجنة. ",
    "ru": "Бюджет проекта был одобрен комитетом в понедельник. ",
    "th": "งบประมาณโครงการได้รับการอนุมัติเมื่อวันจันทร์",
    "hi": "परियोजना का बजट सोमवार को समिति ने मंजूर किया। ",
}
MODEL_TOKENS = 256  # of the smaller encoder; the other one reads twice as many


@pytest.mark.parametrize("language", SENTENCES)
def test_a_passage_is_read_whole(language: str) -> None:
    text = SENTENCES[language] * 60
    pieces = list(split(text))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert max(embedding.mean_tokens([piece]) for piece in pieces) <= MODEL_TOKENS
    # Neither are they crumbs.
    assert min(len(piece) for piece in pieces[:-1]) > 80


@pytest.mark.parametrize("language", ["en", "ja", "ar"])
def test_cut_after_sentences(language: str) -> None:
    pieces = list(split(SENTENCES[language] * 60))
    ends = {piece[-1] for piece in pieces}
    assert ends == {SENTENCES[language].strip()[-1]}


@given(st.text(st.sampled_from("ab \n.。あ漢글ש"), max_size=3_000))
def test_nothing_is_lost(text: str) -> None:
    pieces = list(split(text))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= MAX_CHARS for piece in pieces)
