from __future__ import annotations

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.config.arithmetic import evaluate
from ppcls.errors import ConfigError

_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@st.composite
def _expressions(draw: st.DrawFn) -> tuple[str, float]:
    """Text of an expression with all brackets written, and its value worked out beside it."""
    text, value = (lambda n: (repr(n), n))(draw(st.integers(0, 999) | st.floats(0.001, 1000)))
    for _ in range(draw(st.integers(0, 4))):
        sign = draw(st.sampled_from(sorted(_OPERATORS)))
        number = draw(st.integers(1, 999) | st.floats(0.001, 1000))
        text, value = f"({text} {sign} {number!r})", _OPERATORS[sign](value, number)
    return text, value


@given(_expressions())
def test_value_of_an_expression(expression: tuple[str, float]) -> None:
    text, value = expression
    assert evaluate(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.0/255.0", 1 / 255), ("2+3*4", 14), ("-(2+3)", -5), (" 1e-4 ", 1e-4), ("7//2", 3), ("224", 224)],
)
def test_precedence_signs_and_spaces(text: str, value: float) -> None:
    result = evaluate(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "1/0",
        "__import__('os')",
        "9**9**9",
        "a",
        "",
        "1+",
        "True",
        "'1'",
        "[1]",
        "1 if 1 else 2",
        "1" * 500,
        "1;2",
        "9*" * 99 + "9",
        "1e999",
        "-1e300*1e300",
        "1e19",
        "0x" + "f" * 150,
        "(" * 10_000,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no arithmetic"):
        evaluate(text)


def test_deep_nesting_ends_in_an_error_not_in_a_crash() -> None:
    with pytest.raises(ConfigError):
        evaluate("(" * 150 + "1")
    assert math.isclose(evaluate("-" * 90 + "1"), 1)
