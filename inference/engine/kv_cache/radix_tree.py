"""A radix tree over token ids: whose tokens begin like these, longest common beginning first.

Knows tokens and values; what a value is, and whether it can be used, is the caller's affair.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
V = TypeVar("V")

NO_TOKENS: Tokens = np.empty(0, dtype=np.int32)


class _Node(Generic[V]):
    """Reached by its parent's path and then ``edge``; ``values`` end exactly here."""

    __slots__ = ("children", "edge", "values")

    def __init__(self, edge: Tokens) -> None:
        self.edge = edge
        self.children: dict[int, _Node[V]] = {}
        self.values: list[V] = []

    def below(self, but: "_Node[V] | None" = None) -> Iterator[V]:
        """Every value at or under this node, those under the child ``but`` left out."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield from node.values
            nodes += [child for child in node.children.values() if child is not but]


class RadixTree(Generic[V]):
    """Several values may have the same tokens; values are told apart by identity."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node(NO_TOKENS)

    def add(self, tokens: Tokens, value: V) -> None:
        node, depth = self._root, 0
        while depth < len(tokens):
            child = node.children.get(int(tokens[depth]))
            if child is None:
                # A copy: a view would keep the whole of a longer array alive.
                child = node.children[int(tokens[depth])] = _Node(tokens[depth:].copy())
            n = n_common(child.edge, tokens[depth:])
            if n < len(child.edge):
                child = _split(node, child, n)
            node, depth = child, depth + n
        node.values.append(value)

    def remove(self, tokens: Tokens, value: V) -> None:
        """Raises ``KeyError`` when the value is not there under these tokens."""
        path, depth = [self._root], 0
        while depth < len(tokens):
            child = path[-1].children.get(int(tokens[depth]))
            if child is None or n_common(child.edge, tokens[depth:]) < len(child.edge):
                raise KeyError(f"no value under these {len(tokens)} tokens")
            path.append(child)
            depth += len(child.edge)
        values = path[-1].values
        at = next((index for index, each in enumerate(values) if each is value), None)
        if at is None:
            raise KeyError(f"this value is not under these {len(tokens)} tokens")
        del values[at]
        _prune(path)

    def matches(self, tokens: Tokens) -> Iterator[tuple[int, V]]:
        """Values that begin as ``tokens`` do, with how many tokens they have in common, most first."""
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
        seen: _Node[V] | None = None
        for node, n_tokens in path[:0:-1]:
            for value in node.below(but=seen):
                yield n_tokens, value
            seen = node

    def values(self) -> Iterator[V]:
        """Every value; the index must not change meanwhile."""
        return self._root.below()

    def __len__(self) -> int:
        return sum(1 for _ in self.values())


def n_common(held: Tokens, wanted: Tokens) -> int:
    """How many tokens both begin with."""
    n = min(len(held), len(wanted))
    differs = held[:n] != wanted[:n]
    return int(differs.argmax()) if differs.any() else n


def _split(parent: _Node[V], child: _Node[V], n_tokens: int) -> _Node[V]:
    """Put a node between the two, after the first ``n_tokens`` of the child's edge."""
    upper: _Node[V] = _Node(child.edge[:n_tokens])
    child.edge = child.edge[n_tokens:]
    upper.children[int(child.edge[0])] = child
    parent.children[int(upper.edge[0])] = upper
    return upper


def _prune(path: list[_Node[V]]) -> None:
    """Take away what holds nothing any more, and join what has a single way on."""
    while len(path) > 1:
        node = path.pop()
        parent = path[-1]
        if node.values or len(node.children) > 1:
            return
        first = int(node.edge[0])
        if not node.children:
            del parent.children[first]
            continue
        (child,) = node.children.values()
        child.edge = np.concatenate([node.edge, child.edge])
        parent.children[first] = child
        return
