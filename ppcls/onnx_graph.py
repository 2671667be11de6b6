"""The tensors inside an ONNX file, by name, and the same file with some of them as further outputs.

ONNX Runtime returns only what the file declares as outputs. An ONNX file is a message of protocol buffers,
in which a repeated field is continued by appending to it: so outputs are added without a package for ONNX.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# Numbers of fields: of ModelProto, of GraphProto, of NodeProto and of ValueInfoProto.
_GRAPH = 7
_NODE, _GRAPH_OUTPUT = 1, 12
_NODE_OUTPUT, _OPERATOR = 2, 4
_NAME = 1
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is stored


def node_outputs(content: bytes) -> dict[str, str]:
    """Return the tensors that the nodes of a graph give, in order: for each name the operator of its node.

    Args:
        content: of an ONNX file.

    Raises:
        ValueError: if the content is damaged.
    """
    found: dict[str, str] = {}
    for graph in _fields(memoryview(content), _GRAPH):
        for node in _fields(graph, _NODE):
            kind = "".join(str(value, "utf-8") for value in _fields(node, _OPERATOR))
            for name in _fields(node, _NODE_OUTPUT):
                found.setdefault(str(name, "utf-8"), kind)
    found.pop("", None)  # an output that a node leaves out
    return found


def with_outputs(content: bytes, names: Iterable[str]) -> bytes:
    """Return the content of an ONNX file with further outputs, after those that it has.

    Args:
        content: of the file.
        names: names of tensors in its graph. ONNX Runtime finds their types and shapes itself.
    """
    outputs = b"".join(_field(_GRAPH_OUTPUT, _field(_NAME, name.encode())) for name in names)
    return content + _field(_GRAPH, outputs)


def _fields(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """Yield the values of one field that consists of bytes."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        kind = key & 7
        if kind == _VARINT:
            _, place = _number(message, place)
            continue
        if kind == _BYTES:
            size, place = _number(message, place)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"a field is stored in an unknown way: {kind}")
        if place + size > len(message):
            raise ValueError("a field is longer than the message")
        if key >> 3 == wanted and kind == _BYTES:
            yield message[place : place + size]
        place += size


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number that begins at a place, seven bits in each byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            break
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a number does not end")


def _field(number: int, value: bytes) -> bytes:
    """Return a field that consists of bytes."""
    return _written(number << 3 | _BYTES) + _written(len(value)) + value


def _written(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
