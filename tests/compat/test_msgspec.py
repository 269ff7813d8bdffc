"""msgspec visits the right pointers when memory is collected.

Up to 0.22 a string with a pattern in a union with a list or an object (such as ``content`` of a message) made garbage
collection read the compiled pattern as a type. Depending on the pattern's reference count, that ended the process.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import gc, re, typing
import msgspec

Text = typing.Annotated[str, msgspec.Meta(pattern="^a*$", min_length=1)]
{definition}

references = []
for _ in range(64):
    class Body(msgspec.Struct):
        value: Value
        values: list[Value]

    body = msgspec.convert({{"value": "a", "values": ["aa"]}}, Body)
    gc.collect()
    references.append(re.compile("^a*$"))
"""


@pytest.mark.parametrize(
    "definition",
    [
        "Value = Text | list[int]",
        "Value = Text | list[Text] | None",
        "Value = Text | dict[str, int]",
        "Value = Text | tuple[int, ...]",
        "class Part(msgspec.Struct):\n    text: Text\nValue = Text | list[Part] | None",
    ],
)
def test_a_pattern_beside_a_container_survives_garbage_collection(definition: str) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT.format(definition=definition)], check=True, timeout=60)
