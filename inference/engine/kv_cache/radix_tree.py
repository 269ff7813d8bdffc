"""Radix tree over token ids: values by the length of the prefix they share with a query.

Knows tokens and values; the meaning of a value, and whether it can be reused, is decided by its callers.
"""

from collections.abc import Iterator
from itertools import pairwise, takewhile
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
V = TypeVar("V")

NO_TOKENS: Tokens = np.empty(0, dtype=np.int32)


class _Node(Generic[V]):
    """Node at the end of its parent's path plus ``edge``; ``values`` end exactly here."""

    __slots__ = ("children", "edge", "values")

    def __init__(self, edge: Tokens) -> None:
        self.edge = edge
        self.children: dict[int, _Node[V]] = {}
        self.values: list[V] = []

    def split_edge(self, child: "_Node[V]", n_tokens: int) -> "_Node[V]":
        """Insert a node above ``child``, after the first ``n_tokens`` of its edge, and return it."""
        upper: _Node[V] = _Node(child.edge[:n_tokens])
        child.edge = child.edge[n_tokens:]
        upper.children[int(child.edge[0])] = child
        self.children[int(upper.edge[0])] = upper
        return upper

    def prune(self, child: "_Node[V]") -> bool:
        """Delete ``child`` if it is empty, or merge it into its only child if it has no values; True if deleted."""
        if child.values or len(child.children) > 1:
            return False
        first = int(child.edge[0])
        if not child.children:
            del self.children[first]
            return True
        (only_child,) = child.children.values()
        only_child.edge = np.concatenate([child.edge, only_child.edge])
        self.children[first] = only_child
        return False

    def subtree_values(self, exclude: "_Node[V] | None" = None) -> Iterator[V]:
        """Yield every value at or under this node, except those under the child ``exclude``."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield from node.values
            nodes += [child for child in node.children.values() if child is not exclude]


class RadixTree(Generic[V]):
    """Several values may have the same tokens; values are compared by identity."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node(NO_TOKENS)

    def add(self, tokens: Tokens, value: V) -> None:
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(int(tokens[depth]))
            if child is None:
                # A copy: a view would keep the whole of a longer array in memory.
                child = node.children[int(tokens[depth])] = _Node(tokens[depth:].copy())
            n = n_common(child.edge, tokens[depth:])
            if n < len(child.edge):
                child = node.split_edge(child, n)
            node, depth = child, depth + n
        node.values.append(value)

    def remove(self, tokens: Tokens, value: V) -> None:
        """Remove a value; raises ``KeyError`` when it is not stored under these tokens."""
        path, depth = [self._root], 0
        while depth < len(tokens):
            child = path[-1].children.get(int(tokens[depth]))
            if child is None or n_common(child.edge, tokens[depth:]) < len(child.edge):
                raise KeyError(f"no value is stored under these {len(tokens)} tokens")
            path.append(child)
            depth += len(child.edge)
        values = path[-1].values
        position = next((index for index, stored in enumerate(values) if stored is value), None)
        if position is None:
            raise KeyError(f"this value is not stored under these {len(tokens)} tokens")
        del values[position]
        for parent, child in reversed(list(pairwise(path))):
            if not parent.prune(child):
                break

    def matches(self, tokens: Tokens) -> Iterator[tuple[int, V]]:
        """Yield (number of common tokens, value) for every value that shares a prefix with ``tokens``, most first."""
        path, depth = [(self._root, 0)], 0
        while depth < len(tokens):
            child = path[-1][0].children.get(int(tokens[depth]))
            if child is None:
                break
            n = n_common(child.edge, tokens[depth:])
            depth += n
            path.append((child, depth))
            if n < len(child.edge):
                break
        visited: _Node[V] | None = None
        for node, n_tokens in path[:0:-1]:
            for value in node.subtree_values(exclude=visited):
                yield n_tokens, value
            visited = node

    def extensions(self, tokens: Tokens) -> Iterator[V]:
        """Yield every value whose tokens begin with all of ``tokens`` (at least one), or equal them."""
        longest = takewhile(lambda match: match[0] == len(tokens), self.matches(tokens))
        return (value for _, value in longest)

    def values(self) -> Iterator[V]:
        """Yield every value; the tree must not change meanwhile."""
        return self._root.subtree_values()

    def __len__(self) -> int:
        return sum(1 for _ in self.values())


def n_common(left: Tokens, right: Tokens) -> int:
    """Return the length of the common prefix."""
    n = min(len(left), len(right))
    differs = left[:n] != right[:n]
    return int(differs.argmax()) if differs.any() else n
