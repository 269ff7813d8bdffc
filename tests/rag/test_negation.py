"""Questions for what did not happen, and passages that say so."""

import pytest

from chat.rag.search.negation import asks_for_a_negation, negates
from tests.rag.builders import ask, remember, texts

SIGNED_AND_NOT = [
    (
        "Which NDA did we not sign?",
        "We signed the NDA with Acme on Monday.",
        "The NDA with Globex is still unsigned.",
    ),
    (
        "Which contract was not signed?",
        "The contract with Hooli was signed.",
        "The contract with Initech was rejected.",
    ),
    ("Which invoice was never paid?", "The invoice of March was paid.", "Nobody paid the invoice of April."),
    (
        "Welche Rechnung wurde nicht bezahlt?",
        "Die Rechnung vom März wurde bezahlt.",
        "Die Rechnung vom April ist noch nicht bezahlt.",
    ),
    (
        "¿Qué factura no se pagó?",
        "La factura de marzo se pagó.",
        "La factura de abril todavía no está pagada.",
    ),
    (
        "Quelle facture n'a pas été payée ?",
        "La facture de mars a été payée.",
        "La facture d'avril n'est pas encore payée.",
    ),
    ("哪张发票没有付款？", "三月的发票已经付款。", "四月的发票还没付款。"),
    ("どの請求書が支払われていませんか", "三月の請求書は支払われました。", "四月の請求書はまだ支払われていません。"),
    ("أي فاتورة لم تدفع؟", "فاتورة مارس دفعت.", "فاتورة أبريل لم تدفع بعد."),
]


@pytest.mark.parametrize(("question", "done", "undone"), SIGNED_AND_NOT)
def test_words(question: str, done: str, undone: str) -> None:
    assert asks_for_a_negation(question)
    assert not negates(done)
    assert negates(undone)


@pytest.mark.parametrize(
    "question",
    [
        "Which NDA did we sign?",
        "Is it signed or not?",
        "Why not on Friday?",
        "Didn't we sign the NDA?",
        "Was steht in der Notiz?",
        "What did Nora note?",
        "",
    ],
)
def test_other_questions(question: str) -> None:
    assert not asks_for_a_negation(question)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("question", "done", "undone"), SIGNED_AND_NOT)
def test_the_undone_is_first(question: str, done: str, undone: str) -> None:
    remember(done, "Lunch is at noon.", undone, "The printer is broken again.")
    assert texts(ask(question))[0] == undone


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("question", "answer", "others"),
    [
        (
            "Which plant did not survive?",
            "There are only three plants left, the fern died.",
            ("I never had basil.", "Sold it to the neighbours, it would never have fit.", "I don't run on Sundays."),
        ),
        (
            "Who did not like the new boss?",
            "Tom found our new boss rude.",
            ("I never had basil.", "Sold it to the neighbours, it would never have fit.", "I don't run on Sundays."),
        ),
        (
            "Welche Pflanze hat es nicht geschafft?",
            "Der Farn ist eingegangen, nur drei Pflanzen sind übrig.",
            ("Das ist nicht weit von hier.", "Der Bus kommt nie vor sechs.", "Keine Ahnung, wo das Kabel liegt."),
        ),
        (
            "没有登记就拿走书的人是谁？",
            "后来发现是三楼的李阿姨借了忘记登记。",
            ("老周说他也写诗，能不能上台。", "功率太大的话线路受不了。", "我不吃香菜。"),
        ),
        (
            "¿Qué planta no sobrevivió?",
            "El helecho se murió, sólo quedan tres plantas.",
            ("No pasa nada, la furgoneta es azul.", "El domingo no hay autobuses.", "Nunca como lentejas."),
        ),
    ],
)
def test_unrelated_negations_are_not_first(question: str, answer: str, others: tuple[str, ...]) -> None:
    remember(answer, "Lunch is at noon.", *others)
    assert texts(ask(question))[0] == answer
