"""Changes to bytes and to trees of values, of the kinds that damage and malice make."""

from __future__ import annotations

import copy
import pickle
import pickletools
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**33,
    2**62,
    2**63,
    2**64 - 1,
)


def mutate_bytes(dice: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return `content` with one to five changes; pieces of `others` may come in."""
    changed = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 5))):
        dice.choice(_BYTE_CHANGES)(dice, changed, others or (content,))
    return bytes(changed)


def _place(dice: random.Random, changed: bytearray) -> int:
    return dice.randrange(len(changed)) if changed else 0


def _flip(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    if changed:
        changed[_place(dice, changed)] ^= 1 << dice.randrange(8)


def _byte(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    if changed:
        changed[_place(dice, changed)] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _number(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    place, size = _place(dice, changed), dice.choice((2, 4, 8))
    number = dice.choice(NUMBERS) % (1 << 8 * size)
    changed[place : place + size] = number.to_bytes(size, dice.choice(("little", "little", "big")))


def _cut(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    del changed[_place(dice, changed) :]


def _remove(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    place = _place(dice, changed)
    del changed[place : place + dice.choice((1, 2, 8, 64))]


def _repeat(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    place = _place(dice, changed)
    piece = bytes(changed[place : place + dice.choice((1, 4, 16, 64))])
    changed[place:place] = piece * dice.choice((1, 2, 10, 300))


def _splice(dice: random.Random, changed: bytearray, others: Sequence[bytes]) -> None:
    other = dice.choice(others)
    start = dice.randrange(max(len(other), 1))
    place = _place(dice, changed)
    changed[place : place + dice.choice((0, 8, 64))] = other[start : start + dice.choice((1, 8, 64, 500))]


def _noise(dice: random.Random, changed: bytearray, _: Sequence[bytes]) -> None:
    place = _place(dice, changed)
    changed[place:place] = dice.randbytes(dice.choice((1, 3, 20)))


_BYTE_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip,
    _flip,
    _byte,
    _byte,
    _number,
    _cut,
    _remove,
    _repeat,
    _splice,
    _noise,
)


# ---------------------------------------------------------------- instructions of pickles


def random_pickle(dice: random.Random) -> bytes:
    """Return instructions in random order, most with arguments that fit, around the names that are known."""
    steps = [b"\x80" + bytes([dice.choice((2, 3, 4, 4, 5))])]
    steps += [dice.choice(_STEPS)(dice) for _ in range(dice.choice((5, 20, 80, 300)))]
    return b"".join(steps) + b"."


def mutate_pickle(dice: random.Random, content: bytes) -> bytes:
    """Change a pickle by whole instructions, so that what follows can still be read."""
    places = [place for _, _, place in pickletools.genops(content)]
    steps = [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]
    for _ in range(dice.choice((1, 1, 2, 4))):
        place = dice.randrange(len(steps))
        change = dice.randrange(5)
        if change == 0:
            steps[place] = dice.choice(_STEPS)(dice)
        elif change == 1:
            steps[place:place] = [dice.choice(_STEPS)(dice) for _ in range(dice.choice((1, 2, 5)))]
        elif change == 2:
            del steps[place]
        elif change == 3:
            steps[place:place] = steps[place : place + dice.choice((1, 5, 20))] * dice.choice((1, 2, 50))
        else:
            other = dice.randrange(len(steps))
            steps[place], steps[other] = steps[other], steps[place]
        if not steps:
            break
    return b"".join(steps)


def _text(dice: random.Random) -> bytes:
    text = dice.choice(("a", "latin1", "<", "f4", "O", "", "x" * 300, "\ud800")).encode(
        "utf-8", "surrogatepass"
    )
    return b"X" + struct.pack("<I", dice.choice((len(text), len(text), len(text), 2**32 - 1))) + text


def _data(dice: random.Random) -> bytes:
    size = dice.choice((0, 1, 4, 24, 200))
    return b"C" + bytes([size]) + bytes(size)


def _whole(dice: random.Random) -> bytes:
    value = dice.choice((*NUMBERS, -1, 3, 4, 6))
    return pickle.dumps(value, protocol=dice.choice((1, 2)))[:-1].removeprefix(b"\x80\x02")


def _named(dice: random.Random) -> bytes:
    return dice.choice(
        (
            b"cnumpy.core.multiarray\n_reconstruct\n",
            b"cnumpy._core.multiarray\nscalar\n",
            b"cnumpy\nndarray\n",
            b"cnumpy\ndtype\n",
            b"c_codecs\nencode\n",
            b"cbuiltins\ntuple\n",
            b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch\nFloatStorage\n",
            b"ctorch\nSize\n",
            b"cargparse\nNamespace\n",
            b"cos\nsystem\n",
        )
    )


def _memo(dice: random.Random) -> bytes:
    number = dice.randrange(8)
    return dice.choice(
        (
            b"q" + bytes([number]),
            b"h" + bytes([number]),
            b"p%d\n" % dice.choice((number, 2**61 - 1, 10**30, -1)),
            b"g%d\n" % number,
            b"r" + struct.pack("<I", dice.choice((number, 2**32 - 1))),
            b"j" + struct.pack("<I", number),
            b"\x94",
        )
    )


def _dtype(dice: random.Random) -> bytes:
    code = dice.choice((b"f4", b"f2", b"f16", b"O8", b"i8", b"u8", b"V8", b"b1"))
    return (
        b"cnumpy\ndtype\nX"
        + struct.pack("<I", len(code))
        + code
        + b"\x89\x88\x87R(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def _array(dice: random.Random) -> bytes:
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    shape = b"(" + b"".join(_whole(dice) for _ in range(dice.choice((0, 1, 1, 2, 40)))) + b"t"
    return start + b"(K\x01" + shape + _dtype(dice) + b"\x89" + _data(dice) + b"tb"


def _single(dice: random.Random) -> bytes:
    return bytes([dice.choice(b"(0122)]}tldesuabRQ\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93N\x97\x98.o")])


def _announced(dice: random.Random) -> bytes:
    size = dice.choice(NUMBERS)
    return dice.choice((b"\x8e", b"\x8d", b"\x95", b"\x96")) + struct.pack("<Q", size)


_STEPS: tuple[Callable[[random.Random], bytes], ...] = (
    *(_single,) * 8,
    *(_memo,) * 3,
    _text,
    _text,
    _data,
    _whole,
    _whole,
    _named,
    _named,
    _dtype,
    _array,
    _announced,
)


# ---------------------------------------------------------------- trees of values

_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    10**6,
    10**9,
    2**62,
    2**64 - 1,
    -(2**63),
    0.5,
    -0.5,
    1e-30,
    1e300,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "True",
    "1/0",
    "9*9*9",
    "${Global.epochs}",
    "${nothing}",
    "${",
    "a\0b",
    "\x1b[2J",
    "模型",
    "x" * 5000,
    "/",
    "/dev/null",
    "~",
    [],
    {},
    [None],
    [[]],
    [1, 2, 3],
    [0.5] * 1000,
    {"name": None},
    {"name": "x"},
    {"a": 1, "b": 2},
    {1: 2},
    [{}],
    [[[[[[]]]]]],
    "2024-01-01",
)


def mutate_tree(dice: random.Random, tree: Any, others: Sequence[Any] = ()) -> Any:
    """Return a copy of a tree of dicts and lists with one to four changes; parts of `others` may come in."""
    changed = copy.deepcopy(tree)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        places = list(_places(changed, ()))
        if not places:
            return dice.choice(_ODD)
        parent, key = dice.choice(places)
        dice.choice(_TREE_CHANGES)(dice, parent, key, places, others or (tree,))
    return changed


def _places(node: Any, _: tuple[()]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found.append((node, key))
        found.extend(_places(value, ()))
    return found


def _odd(dice: random.Random, parent: Any, key: Any, *_: Any) -> None:
    parent[key] = copy.deepcopy(dice.choice(_ODD))


def _drop(dice: random.Random, parent: Any, key: Any, *_: Any) -> None:
    if isinstance(parent, dict):
        parent.pop(key, None)
    elif key < len(parent):
        del parent[key]


def _rename(dice: random.Random, parent: Any, key: Any, places: Any, others: Any) -> None:
    if not isinstance(parent, dict) or key not in parent:
        return _odd(dice, parent, key)
    value = parent.pop(key)
    names = [name for owner, name in places if isinstance(owner, dict)]
    new = dice.choice(
        (str(key) + "x", str(key)[:-1], str(key).swapcase(), 5, "", "a.b", "a\nb", dice.choice(names))
    )
    parent[new] = value
    return None


def _move(dice: random.Random, parent: Any, key: Any, places: Any, others: Any) -> None:
    source = dice.choice((others, (places,)))[0]
    owner, name = dice.choice(
        _places(source, ()) if isinstance(source, (dict, list)) and source is not places else places
    )
    if isinstance(owner, (dict, list)):
        try:
            parent[key] = copy.deepcopy(owner[name])
        except (KeyError, IndexError):  # an earlier change took it away
            return


def _again(dice: random.Random, parent: Any, key: Any, *_: Any) -> None:
    if isinstance(parent, list) and key < len(parent):
        parent[key:key] = [copy.deepcopy(parent[key]) for _ in range(dice.choice((1, 1, 3, 50)))]
    elif isinstance(parent, dict) and key in parent:
        parent[key] = [parent[key]]


def _wrap(dice: random.Random, parent: Any, key: Any, *_: Any) -> None:
    try:
        value = parent[key]
    except (KeyError, IndexError):
        return
    for _ in range(dice.choice((1, 1, 2, 30, 60))):
        value = dice.choice(({"a": value}, [value], {str(key): value}))
    parent[key] = value


def _scale(dice: random.Random, parent: Any, key: Any, *_: Any) -> None:
    try:
        value = parent[key]
    except (KeyError, IndexError):
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    parent[key] = dice.choice(
        (-value, value * 1000, value * 10**6, value + 1, value - 1, float(value), str(value))
    )


_TREE_CHANGES: tuple[Callable[..., None], ...] = (
    _odd,
    _odd,
    _odd,
    _drop,
    _rename,
    _move,
    _again,
    _wrap,
    _scale,
    _scale,
)
