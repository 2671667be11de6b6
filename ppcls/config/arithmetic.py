"""Numbers written as arithmetic, such as ``1.0/255.0``, computed without ``eval``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from ppcls.errors import ConfigError, shorten

Number = int | float

_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
# Long enough for any real setting, short enough that the parser cannot run out of stack.
_LONGEST = 200
# Beyond this a whole number fits no computer's, and what multiplies it may print for ever.
_LARGEST = 1e18


def evaluate(text: str) -> Number:
    """Return the value of a sum, difference, product or quotient of numbers, e.g. ``"1.0/255.0"``.

    Raises:
        ConfigError: if `text` contains anything other than numbers, ``+ - * / //`` and brackets, divides by
            zero, or the result exceeds 1e18.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} characters")
        value = _value(ast.parse(text.strip(), mode="eval").body)
        if not math.isfinite(value) or abs(value) > _LARGEST:
            raise ValueError(f"larger than {_LARGEST:.0e}")
        return value
    except (ValueError, SyntaxError, ArithmeticError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigError(
            f"{shorten(repr(text))} is no number and no arithmetic of numbers ({reason})"
        ) from None


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise ValueError(f"{node.value!r} is no number")
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"{type(node).__name__} is not allowed")
