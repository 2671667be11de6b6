from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest

from ppcls.config.binding import bind, parameters_of
from ppcls.config.mistakes import Findings
from ppcls.config.option_types import Mismatch, convert, describe

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, int),
        (1, float),
        (1.5, float),
        ("a", str),
        (True, bool),
        (None, Optional[int]),  # noqa: UP045
        (None, int | None),
        ("x", str | float),
        ("1.0/255.0", float | str),
        ([1, 2], list[int]),
        ([1, 2.5], Sequence[float]),
        ([1, "a"], tuple[int, str]),
        ([1, 2, 3], tuple[int, ...]),
        ([[1, 2], [3]], list[list[int]]),
        ([1], int | list[int]),
        ({"a": 1}, dict[str, Any]),
        ({"a": 1}, Mapping[str, int]),
        ("b", Literal["a", "b"]),
        (False, Literal[False]),
        (None, Literal["a", None]),
        (object(), Callable[..., int]),
        ({"anything": [1]}, Any),
    ],
)
def test_values_that_fit_come_back_unchanged(value: Any, wanted: Any) -> None:
    assert convert(value, wanted) == value
    assert type(convert(value, wanted)) is type(value)


@pytest.mark.parametrize(
    ("value", "wanted", "result"),
    [
        ("1.0/255.0", float, 1 / 255),
        ("1.0/255.0", float | None, 1 / 255),
        ("224*2", int, 448),
        (["1/2", 3], list[float], [0.5, 3]),
    ],
)
def test_arithmetic_is_worked_out_where_a_number_is_wanted(value: Any, wanted: Any, result: Any) -> None:
    assert convert(value, wanted) == result


@pytest.mark.parametrize(
    ("value", "wanted", "words"),
    [
        (True, int, "a whole number, got True"),
        (True, float, "a number, got True"),
        (1, bool, "true or false, got 1"),
        ("false", bool, "true or false, got 'false'"),
        (1.0, int, "a whole number, got 1.0"),
        ("1/2", int, "a whole number"),
        (3, str, "in quotes"),
        (None, int, "got null"),
        ("a", list[int], "a list of whole numbers, got 'a'"),
        ([1, 2, 3], tuple[int, int], "2 values, got 3"),
        ("sotfmax", Literal["softmax", "sigmoid"], "Did you mean: softmax"),
        (1, Literal[True], "true"),
        (0, Literal[False], "false"),
        (1.5, int | list[int], "a whole number or a list of whole numbers"),
        ([1], dict[str, Any], "a map"),
    ],
)
def test_values_that_do_not_fit(value: Any, wanted: Any, words: str) -> None:
    with pytest.raises(Mismatch) as caught:
        convert(value, wanted)
    assert words in caught.value.text


def test_a_wrong_element_is_located() -> None:
    with pytest.raises(Mismatch) as caught:
        convert([[1], [2, "x"]], list[list[int]])
    assert caught.value.path == "1.1"


def _component(
    size: int, scale: float = 1.0, mode: Literal["a", "b"] = "a", extra: Decimal | None = None
) -> None:
    """Have a required option, typed ones, and a type that is known to type checkers only."""


def _bind(
    options: dict[str, Any], factory: Any = _component, **rules: Any
) -> tuple[dict[str, Any], list[Any]]:
    findings = Findings()
    rules = {"extra": {}, "supplied": (), **rules}
    bound = bind("Component", parameters_of(factory), options, ("P", "P.C"), findings, **rules)
    return bound, findings.mistakes


def test_options_that_fit() -> None:
    assert _bind({"size": 2, "scale": "1/4", "extra": 3}) == ({"size": 2, "scale": 0.25, "extra": 3}, [])


def test_unknown_missing_and_wrong_options_are_all_reported() -> None:
    _, mistakes = _bind({"scael": 1, "mode": "c"})
    assert [mistake.path for mistake in mistakes] == ["P", "P.C.mode", "P"]
    texts = " ".join(text for text in map(str, mistakes))
    assert "no option 'scael'. Did you mean: scale?" in texts
    assert "needs the option 'size'" in texts


def test_a_misspelt_required_option_is_one_mistake() -> None:
    assert len(_bind({"sise": 3})[1]) == 1


def test_options_of_the_builder() -> None:
    assert _bind({"size": 1, "weight": 2}, extra={"weight": float}) == ({"size": 1, "weight": 2}, [])
    assert _bind({}, supplied={"size"})[1] == []


def test_classes_and_open_signatures() -> None:
    class Base:
        def __init__(self, size: int) -> None: ...

    class Child(Base):
        pass

    def takes_more(**options: Any) -> None: ...

    assert _bind({"size": "x"}, Child)[1][0].path == "P.C.size"
    assert _bind({"anything": 1}, takes_more) == ({"anything": 1}, [])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Literal[1, 3], "1 or 3"),
        (Literal[0, 1], "0 or 1"),
        (Literal[True, 3], "true or 3"),
        (Literal[False, None, "x"], "false or null or 'x'"),
        (list[int] | tuple[int, ...], "a list of whole numbers"),
        (Sequence[float] | list[float] | None, "a list of numbers or null"),
    ],
)
def test_messages_say_once_what_may_stand_in_the_recipe(wanted: Any, words: str) -> None:
    assert describe(wanted) == words
    with pytest.raises(Mismatch, match=f"expected {re.escape(words)}, got 'y'"):
        convert("y", wanted)
