"""Writes ONNX models: the few messages of onnx.proto that an encoder needs, in protobuf's wire format.

https://github.com/onnx/onnx/blob/main/onnx/onnx.proto has the field numbers, https://protobuf.dev/programming-guides/encoding
the encoding. The package ``onnx`` would be 20 MB for these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

IR_VERSION, OPSET = 10, 20
VARINT, BYTES = 0, 2
ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7}
FLOAT, INT = 1, 2  # of an attribute
Size = Sequence[str | int]
MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators


@dataclass
class Graph:
    """Nodes and constants of a model, in order of computation."""

    nodes: list[bytes] = field(default_factory=list)
    constants: list[bytes] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant and return its name."""
        dims = b"".join(_number(1, size) for size in value.shape)
        kind = _number(2, ELEMENT_TYPES[value.dtype.name])
        self.constants.append(dims + kind + _text(8, name) + _bytes(9, np.ascontiguousarray(value).tobytes()))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: float | int
    ) -> str:
        """Add a node and return the name of its output."""
        encoded = [_text(1, name) for name in inputs] + [_text(2, output), _text(4, operator)]
        for name, value in attributes.items():
            if isinstance(value, float):
                # Field 2 with a fixed width of four bytes.
                content = b"\x15" + np.float32(value).tobytes() + _number(20, FLOAT)
            else:
                content = _number(3, value) + _number(20, INT)
            encoded.append(_bytes(5, _text(1, name) + content))
        self.nodes.append(b"".join(encoded) + (_text(7, domain) if domain else b""))
        return output

    def model(self, inputs: Mapping[str, tuple[str, Size]], output: str, shape: Size) -> bytes:
        """Return the model file; a dimension given by name may have any size."""
        parts = [_bytes(1, node) for node in self.nodes] + [_text(2, "encoder")]
        parts += [_bytes(5, constant) for constant in self.constants]
        parts += [_bytes(11, _value(name, *kind)) for name, kind in inputs.items()]
        parts.append(_bytes(12, _value(output, "float32", shape)))
        opsets = [_number(2, OPSET), _text(1, MICROSOFT) + _number(2, 1)]
        return _number(1, IR_VERSION) + _bytes(7, b"".join(parts)) + b"".join(_bytes(8, opset) for opset in opsets)


def _value(name: str, element_type: str, shape: Size) -> bytes:
    dims = [_bytes(1, _text(2, size) if isinstance(size, str) else _number(1, size)) for size in shape]
    tensor = _number(1, ELEMENT_TYPES[element_type]) + _bytes(2, b"".join(dims))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _number(tag: int, number: int) -> bytes:
    return _varint(tag << 3 | VARINT) + _varint(number)


def _bytes(tag: int, data: bytes) -> bytes:
    return _varint(tag << 3 | BYTES) + _varint(len(data)) + data


def _text(tag: int, text: str) -> bytes:
    return _bytes(tag, text.encode())
