"""Pytest passes over folders of some names, such as ``dist``, without a word; none may have tests."""

from fnmatch import fnmatch
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def test_pytest_goes_into_every_folder(pytestconfig: pytest.Config) -> None:
    skipped = pytestconfig.getini("norecursedirs")
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("test_*.py")}
    lost = [str(folder) for folder in folders if any(fnmatch(p, s) for p in folder.parts for s in skipped)]
    assert len(folders) > 20
    assert lost == []


def test_every_test_is_in_a_file_that_pytest_reads() -> None:
    elsewhere = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if not path.name.startswith("test_") and "\ndef test_" in path.read_text(encoding="utf-8")
    ]
    assert elsewhere == []
