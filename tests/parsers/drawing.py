"""Bytes and texts as a hostile writer makes them: sound examples with a few edits, JSON of any form, plain noise.

The tests draw the same ones each time. ``FUZZ_EXAMPLES=5000`` draws new ones, as many for each test.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.faults.fuzzing import VALUES

N_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
drawn = hypothesis_settings(
    max_examples=N_EXAMPLES,
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
# Deeper than any parser recurses, more digits than Python converts, and what other encodings begin with.
DEEP = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"x":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
]
ODD_JSON = [
    b"",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"NaN",
    b"9" * 5_000,
    b'"\\ud800"',
    b'"\\u0000"',
    b"{}",
    b"[]",
    b"null",
]
# Lengths and counts at the limits of their types, as they lie in binary files.
NUMBERS = [value.to_bytes(8, "little") for value in (0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)]
PIECES = st.binary(max_size=12) | st.sampled_from([b"\0", b"\n", b"\r\n", b"\xff" * 8, b"<", b"{", b'"', *NUMBERS])
MAX_EDITS = 5


@st.composite
def edited(draw: st.DrawFn, examples: Sequence[bytes]) -> bytes:
    """One of the examples after up to MAX_EDITS insertions, replacements, deletions, doublings and cuts."""
    data = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(0, MAX_EDITS))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 16)))
        match draw(st.integers(0, 4)):
            case 0:
                data = data[:start] + draw(PIECES) + data[start:]
            case 1:
                piece = draw(PIECES)
                data = data[:start] + piece + data[start + len(piece) :]
            case 2:
                data = data[:start] + data[end:]
            case 3:
                data = data[:end] + data[start:]
            case _:
                data = data[:start]
    return data


def foreign_json(values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[bytes]:
    """JSON of any form, and what is none."""
    whole = values.map(lambda value: json.dumps(value).encode())
    return (
        whole
        | whole.flatmap(lambda data: edited([data]))
        | st.sampled_from([*DEEP, *ODD_JSON])
        | st.binary(max_size=40)
    )


def objects(names: Sequence[str], likely: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """JSON objects with some of the names, whose values are likely ones or any."""
    return st.dictionaries(st.sampled_from(names), likely | VALUES, max_size=len(names))


def is_storable(text: str) -> bool:
    """Return whether every database stores the text: no NUL, no lone surrogate."""
    return "\0" not in text and text == text.encode("utf-8", "replace").decode()
