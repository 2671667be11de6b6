"""Components made from nodes that nobody checked before, as scripts and descriptions of exports give them."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from ppcls.config.binding import construct, parameters_of
from ppcls.errors import ConfigError
from ppcls.registry import Registry

KIND = Registry("kind")


@KIND.register()
class Thing:
    """Takes options of several types."""

    def __init__(
        self,
        count: int = 1,
        share: float | str = 0.5,
        names: list[str] | None = None,
        word: Literal["a", "b"] = "a",
        anything: Any = None,
    ) -> None:
        self.options = (count, share, names, word, anything)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"count": "many"}, "X.Thing.count: expected a whole number, got 'many' (str)"),
        ({"count": 1.5}, "X.Thing.count: expected a whole number"),
        ({"count": True}, "X.Thing.count: expected a whole number"),
        ({"count": [1]}, "X.Thing.count: expected a whole number"),
        ({"count": None}, "X.Thing.count: expected a whole number, got null"),
        ({"share": {}}, "X.Thing.share: expected a number or a string"),
        ({"names": ["a", 1]}, "X.Thing.names.1: expected a string, got 1"),
        ({"names": "a"}, "X.Thing.names: expected a list of strings, got 'a'"),
        ({"word": ["a"]}, "X.Thing.word: expected 'a' or 'b'"),
        ({"word": "other"}, "X.Thing.word: expected 'a' or 'b', got 'other' (str)"),
        ({"other": 1}, "X: Thing has no option 'other'"),
    ],
)
def test_wrong_types_are_named_with_their_place(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        construct(KIND, {"Thing": options}, "X")
    assert words in str(caught.value)


def test_right_types_and_objects_of_scripts_pass() -> None:
    thing = object()
    made = construct(KIND, {"Thing": {"count": 3, "share": "1/2", "names": None, "anything": thing}}, "X")
    assert made.options == (3, "1/2", None, "a", thing)
    assert construct(KIND, {"Thing": {"count": "2*3"}}, "X").options[0] == 6
    assert construct(KIND, {"Thing": {"names": thing}}, "X").options[2] is thing


def test_an_annotation_that_is_a_remark_accepts_everything() -> None:
    def build(margin: "how far ahead" = 1.0, other: 1 / 0 = 2.0) -> None:  # noqa: F722
        """Has remarks in place of types."""

    parameters = parameters_of(build)
    assert [parameter.annotation for parameter in parameters.values()] == [Any, Any]
