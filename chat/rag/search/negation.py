"""Negations in questions and passages: "Which NDA did we not sign?" asks for the unsigned one.

Vectors hardly tell a sentence from its opposite, and words of negation are in every list of stop words.
"""

import re

from chat.rag.words import bare

_NEGATIONS = [
    "not|never|without|no longer|none|nothing|nobody|[a-z]+n['’]t|cannot",
    "nicht|nie|niemals|kein|keine|keine[nmrs]|ohne|noch offen",
    "no|nunca|sin|ningun|ninguna|jamas|tampoco|todavia no",
    "pas|jamais|aucun|aucune|sans",
    "non|mai|senza|nao|sem|niet|geen|zonder|не|нет|без|nie|bez|inte|ikke|uden",
    *map(bare, ("لم", "لن", "ليس", "ليست", "لا", "غير", "بدون", "لما", "לא", "אין", "בלי")),
]
_SIGNS = "没|沒|不|未|無|ない|なかった|ません|ず、|않|못|안 |없"
_NEGATION = re.compile(rf"(?<!\w)(?:{'|'.join(_NEGATIONS)})(?!\w)|{_SIGNS}")
# Beside words of negation, a passage says so by what did not happen.
_UNDONE = re.compile(
    r"(?<!\w)(?:un[a-z]{3,}ed|unpaid|unsent|refus\w+|declin\w+|reject\w+|pending|outstanding|missing|yet to"
    r"|abgelehnt|verweiger\w+|fehlt|aussteh\w+|pendiente\w*|rechaz\w+|refuse\w*|en attente)(?!\w)|拒否|拒绝|保留"
)
# A question for agreement is no negation.
_TAG = re.compile(r"(?:or not|oder nicht|o no|ou non|ou pas|why not|(?:is|are|do|does|did|was|were|has|have)n['’]t)")


def asks_for_a_negation(question: str) -> bool:
    return _NEGATION.search(_TAG.sub("", bare(question))) is not None


def negates(text: str) -> bool:
    plain = bare(text)
    return _NEGATION.search(plain) is not None or _UNDONE.search(plain) is not None
