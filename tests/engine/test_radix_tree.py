"""The radix tree against a list that is searched from end to end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.kv_cache.radix_tree import RadixTree, Tokens, n_common

TOKENS = st.lists(st.integers(min_value=0, max_value=2), max_size=8)


def array(tokens: list[int]) -> Tokens:
    return np.asarray(tokens, dtype=np.int32)


@given(held=st.lists(TOKENS.filter(bool), max_size=12), removed=st.sets(st.integers(0, 11)), wanted=TOKENS)
def test_every_value_is_found_with_what_it_has_in_common(
    held: list[list[int]], removed: set[int], wanted: list[int]
) -> None:
    index: RadixTree[list[int]] = RadixTree()
    for each in held:
        index.add(array(each), each)
    left = [each for number, each in enumerate(held) if number not in removed]
    for number in removed & set(range(len(held))):
        index.remove(array(held[number]), held[number])
    assert len(index) == len(left)
    found = list(index.matches(array(wanted)))
    assert [n for n, _ in found] == sorted((n for n, _ in found), reverse=True)
    expected = [(n, each) for each in left if (n := n_common(array(each), array(wanted)))]
    assert sorted(found) == sorted(expected)
    longer = [tokens for tokens in left if wanted and tokens[: len(wanted)] == wanted]
    assert sorted(index.extensions(array(wanted))) == sorted(longer)


def test_what_is_not_there_cannot_be_removed() -> None:
    index: RadixTree[str] = RadixTree()
    index.add(array([1, 2, 3]), "a")
    for tokens, value in (([1, 2], "a"), ([1, 2, 3], "b"), ([1, 2, 3, 4], "a"), ([9], "a")):
        with pytest.raises(KeyError):
            index.remove(array(tokens), value)
    index.remove(array([1, 2, 3]), "a")
    assert (len(index), index._root.children) == (0, {})
