"""Attribution of runner exits to sequences. Knows no processes.

An exit is blamed on the sequences of which the runner had not yet computed a token (unproven), or on all of them if
there were none. After two blames a sequence is a suspect: suspects are submitted one at a time, with no other unproven
sequence beside them, until one emits a token and is cleared, or has three blames and is the culprit.
"""

from collections.abc import Iterable

from inference.dispatch.generation_state import ActiveGeneration

SUSPECT_AT = 2
CULPRIT_AT = 3
# Bounds a sequence that emits a token each time and kills the runner later.
CULPRIT_AT_TOTAL = 10


def blame(generations: Iterable[ActiveGeneration]) -> list[ActiveGeneration]:
    """Blame the exit of a runner on the sequences that may have caused it; return the culprits."""
    inside = [generation for generation in generations if generation.is_in_runner]
    blamed = [generation for generation in inside if not generation.is_proven] or inside
    for generation in blamed:
        generation.deaths.recent += 1
        generation.deaths.total += 1
    return [
        generation
        for generation in blamed
        if generation.deaths.recent >= CULPRIT_AT or generation.deaths.total >= CULPRIT_AT_TOTAL
    ]


def clear(generation: ActiveGeneration) -> None:
    """Clear a sequence that has emitted a token: another one caused the earlier exits."""
    generation.deaths.recent = 0


def admissible(generations: Iterable[ActiveGeneration]) -> list[ActiveGeneration]:
    """Return the generations that may be submitted now, in order."""
    candidates = list(generations)
    suspects = [
        generation for generation in candidates if generation.deaths.recent >= SUSPECT_AT and not generation.is_proven
    ]
    if not suspects:
        return [generation for generation in candidates if not generation.is_in_runner]
    if any(generation.is_in_runner and not generation.is_proven for generation in candidates):
        return []
    return suspects[:1]
