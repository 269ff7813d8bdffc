"""Owners of KV states, and which states have to go when an owner is purged.

A tag names an owner (``<owner>`` or ``<owner>/<epoch>``, opaque here). Every state carries the tags of the sequences
that came to exactly its tokens. A state whose owners are all purged goes, unless another owner's state begins with
its tokens: a common prefix belongs to all that share it.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from inference.engine.kv_cache.radix_tree import RadixTree, Tokens

Tags = frozenset[str]
NO_TAGS: Tags = frozenset()


class PurgedTags:
    """Tags that were purged in this process: nothing that carries only these is kept again.

    States may be on their way from another runner, and sequences may still run, while their owner is purged.
    """

    def __init__(self) -> None:
        self._tags: set[str] = set()

    def add(self, tags: Iterable[str]) -> None:
        self._tags.update(tags)

    def remaining(self, tags: Iterable[str]) -> Tags:
        """Without those that were purged by their own name or by their owner's."""
        return frozenset(tag for tag in tags if not {tag, tag.partition("/")[0]} & self._tags)

    def covers(self, tags: Tags) -> bool:
        """Whether there are tags, all of them purged."""
        return bool(tags) and not self.remaining(tags)


class Tagged(Protocol):
    """An entry of the prefix index."""

    tokens: Tokens
    tags: Tags
    ephemeral: bool

    @property
    def is_running(self) -> bool:
        """Whether a live sequence owns it; its end decides about its state."""
        ...


E = TypeVar("E", bound=Tagged)


def losses(index: RadixTree[E], purged: PurgedTags) -> Iterator[tuple[E, Tags]]:
    """Entries that lose an owner, each with the owners that it has now; without any it has to go.

    Entries without tags (of turns that nobody stores) go together with an entry whose tokens they contain.
    """
    affected = [entry for entry in index.values() if purged.remaining(entry.tags) != entry.tags]
    orphans: dict[int, E] = {}
    for entry in affected:
        sharing = _beginning_with(index, entry)
        owners = purged.remaining(entry.tags)
        if not owners:
            # A turn that nobody stores keeps nothing of others alive.
            owners = purged.remaining(tag for each in sharing if not each.ephemeral for tag in each.tags)
        if not owners:
            orphans |= {id(each): each for each in sharing if not each.tags}
        if not entry.is_running:
            yield entry, owners
    for entry in orphans.values():
        if not entry.is_running:
            yield entry, NO_TAGS


def _beginning_with(index: RadixTree[E], entry: E) -> list[E]:
    """The other entries whose tokens begin with all of this one's."""
    found = []
    for n_tokens, other in index.matches(entry.tokens):
        if n_tokens < len(entry.tokens):
            break
        if other is not entry:
            found.append(other)
    return found
