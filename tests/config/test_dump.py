"""What is written as YAML reads back as it was, here and with other readers."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import yaml

from ppcls.config import dump_yaml, parse_yaml

SIGNS = "01e.+-_:~ yn'\"#\n\t\x85\u2028é猫"


def _texts() -> list[str]:
    rng = random.Random(0)
    short = ["".join(signs) for count in (1, 2, 3) for signs in itertools.product("01e.+-_:", repeat=count)]
    return [*short, *("".join(rng.choices(SIGNS, k=rng.randint(0, 7))) for _ in range(1500))]


@pytest.mark.parametrize("read", [lambda text: parse_yaml(text, "file", 10_000), yaml.safe_load])
def test_texts_stay_texts(read: Any) -> None:
    texts = [
        *_texts(),
        "1e3",
        "1E-5",
        "2e0",
        "no",
        "null",
        "0x1f",
        "1_000",
        "12:30:45",
        "2024-01-01",
        "=",
        "<<",
    ]
    assert read(dump_yaml({"names": texts})) == {"names": texts}
    assert read(dump_yaml(dict.fromkeys(texts, 1))) == dict.fromkeys(texts, 1)


@pytest.mark.parametrize("text", ["😀 é", "C:\\Users", "\\U0001F600", "\udcff.png", "\x00", "x " * 90])
def test_texts_look_as_the_emitter_of_pyyaml_writes_them(text: str) -> None:
    content = {"names": [text, {"key": text}]}
    expected = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    assert dump_yaml(content) == expected


def test_numbers_stay_numbers() -> None:
    content = {"a": [1e-5, 1e22, -0.0, 5e-324, 3, -7, True, None, float("inf")], "b": {}, "c": []}
    assert parse_yaml(dump_yaml(content), "file") == content
