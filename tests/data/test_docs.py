"""The table of transforms in docs/transforms.md has every transform with every option."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from ppcls.data import batch_ops, transforms
from ppcls.registry import BATCH_OPS, TRANSFORMS

TEXT = (Path(__file__).parents[2] / "docs/transforms.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `(\w+)` \|(.*)$", TEXT, re.MULTILINE))
HERE = (transforms.__name__, batch_ops.__name__)
KNOWN = {
    name: registry[name]
    for registry in (TRANSFORMS, BATCH_OPS)
    for name in registry
    if registry[name].__module__.startswith(HERE)  # those of other tests are plugins
}


def test_the_table_has_what_there_is():
    assert set(ROWS) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_each_row_has_every_option(name):
    options = {
        option
        for option, parameter in inspect.signature(KNOWN[name]).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    found = set(re.findall(r"`(\w+)`", ROWS[name]))
    assert options <= found
    assert found - options <= {"prob"}  # which OpSampler adds to its transforms
