"""Owners of KV states, and the states to remove when an owner is purged.

A tag names an owner (``<owner>`` or ``<owner>/<epoch>``, opaque here). Every state carries the tags of the sequences
with exactly its tokens. A state whose owners are all purged is removed, unless another state of the same caller begins
with its tokens: a common prefix belongs to all of the caller's conversations that share it.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from inference.engine.kv_cache.radix_tree import RadixTree, Tokens

Tags = frozenset[str]
NO_TAGS: Tags = frozenset()


class PurgedTags:
    """Tags purged in this process: no state that carries only these is stored again.

    A state may be in transfer from another runner, and a sequence may still run, while its owner is purged.
    """

    def __init__(self) -> None:
        self._tags: set[str] = set()

    def add(self, tags: Iterable[str]) -> None:
        self._tags.update(tags)

    def remaining(self, tags: Iterable[str]) -> Tags:
        """Return the tags that were purged neither by their own name nor by their owner's."""
        return frozenset(tag for tag in tags if not {tag, tag.partition("/")[0]} & self._tags)

    def covers(self, tags: Tags) -> bool:
        """Return whether there are tags and all of them are purged."""
        return bool(tags) and not self.remaining(tags)


class Tagged(Protocol):
    """Entry of the prefix index."""

    tokens: Tokens
    tags: Tags
    ephemeral: bool
    caller: str

    @property
    def is_running(self) -> bool:
        """True for an entry of a live sequence, whose state is decided about at its end."""
        ...


E = TypeVar("E", bound=Tagged)


def losses(index: RadixTree[E], purged: PurgedTags) -> Iterator[tuple[E, Tags]]:
    """Yield (entry, remaining owners) for entries that lose an owner; an entry without owners must be removed.

    Entries without tags (of turns that are not stored) are removed together with an entry whose tokens they begin with.
    """
    affected = [entry for entry in index.values() if purged.remaining(entry.tags) != entry.tags]
    orphans: dict[int, E] = {}
    for entry in affected:
        longer = (other for other in index.extensions(entry.tokens) if other is not entry)
        sharing = [other for other in longer if other.caller == entry.caller]
        owners = purged.remaining(entry.tags)
        if not owners:
            # A turn that is not stored retains no state of others.
            owners = purged.remaining(tag for other in sharing if not other.ephemeral for tag in other.tags)
        if not owners:
            orphans |= {id(other): other for other in sharing if not other.tags}
        if not entry.is_running:
            yield entry, owners
    for entry in orphans.values():
        if not entry.is_running:
            yield entry, NO_TAGS
