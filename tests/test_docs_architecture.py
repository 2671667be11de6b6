"""The page that says where things are names files that exist, and every room of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_0-9]+)*(?:\.py|/))`", TEXT))))
def test_a_file_or_room_exists(name):
    assert (ROOT / "ppcls" / name).exists() or (ROOT / name).exists()


def test_every_room_is_described():
    rooms = {path.parent.name for path in (ROOT / "ppcls").glob("*/__init__.py")}
    described = set(re.findall(r"`([a-z_]+)/`", TEXT))
    # `utils` holds PaddleClas's names of things that live elsewhere.
    assert rooms - described == {"utils"}
