"""docs/network_options.md names every option of every network, and no other."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from ppcls.arch.network import _COMMON
from ppcls.registry import BACKBONES
from ppcls.report.network_tables import families

TEXT = (Path(__file__).parents[2] / "docs" / "network_options.md").read_text("utf-8")
EVERY, SINGLE = TEXT.split("## Options of single families")


def test_every_common_option_is_described():
    rows = re.findall(r"^\| (`.+?) \|", EVERY, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(_COMMON)


def test_every_other_option_is_described_with_its_families():
    described = {
        option: set(names.split(", "))
        for option, names in re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", SINGLE, re.MULTILINE)
    }
    found = {}
    for module, names in families().items():
        for name in names:
            for option in inspect.signature(BACKBONES[name]).parameters.keys() - _COMMON.keys():
                found.setdefault(option, set()).add(module.rpartition(".")[2])
    everywhere = {module.rpartition(".")[2] for module in families()}
    assert described == {option: {"all"} if names == everywhere else names for option, names in found.items()}
