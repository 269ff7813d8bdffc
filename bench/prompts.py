"""Prompts of a wanted length in tokens, different from each other from the first word on."""

import random

# Common words that are one token each in Gemma's vocabulary when a space stands before them.
COMMON = """
time people way day man thing woman life child world school state family student group country problem hand part
place case week company system program question work government number night point home water room mother area money
story fact month lot right study book eye job word business issue side kind head house service friend father power
hour game line end member law car city community name president team minute idea kid body information back parent
face others level office door health person art war history party result change morning reason research girl guy
moment air teacher force education
"""
WORDS = COMMON.split()


def text_of(n_words: int, *, seed: int) -> str:
    """``n_words`` random words, about as many tokens; the same for the same seed."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(n_words))
