"""A store that several processes write, and what killed processes leave in it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from ppcls.errors import DataError
from ppcls.teacher import store as store_module
from ppcls.teacher.store import MANIFEST, Store

KIND = np.dtype([("index", "<u4"), ("T:logits", "<f4", (2,))])


def records(first, count):
    found = np.zeros(count, KIND)
    found["index"] = np.arange(first, first + count)
    found["T:logits"] = np.random.default_rng(first).random((count, 2))
    return found


def manifest(seed=1, version="1"):
    return {"views": 1, "rows": 20, "made_of": {"seed": seed, "versions": {"ppcls": version}}}


def test_shard_of_another_process_that_begins_at_the_same_position_stays(tmp_path):
    """Two processes fill the same store side by side, and the second one is stopped early."""
    first, second = Store(tmp_path), Store(tmp_path)
    first.write_manifest(manifest())
    second.write_manifest(manifest())
    first.append(1, [(0, 20)], records(0, 20))
    second.append(1, [(0, 5)], records(0, 5))
    found = Store(tmp_path)
    assert found.missing(1, 20) == []
    assert found.verify(KIND) == []
    np.testing.assert_array_equal(found.read(1, 0, 20)["index"], np.arange(20))


def test_two_processes_begin_a_store_of_the_same(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    first.write_manifest(manifest(version="1"))
    second.write_manifest(manifest(version="2"))  # another machine may have other versions
    assert first.manifest == second.manifest == Store(tmp_path).manifest


def test_two_processes_begin_a_store_of_different_things(tmp_path):
    first, second = Store(tmp_path), Store(tmp_path)
    first.write_manifest(manifest())
    before = (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(DataError, match="another process has begun to fill this store for something else"):
        second.write_manifest(manifest(seed=2))
    assert (tmp_path / MANIFEST).read_bytes() == before
    assert os.listdir(tmp_path) == [MANIFEST]


def test_manifest_is_not_replaced_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    def link(*given):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    test_two_processes_begin_a_store_of_different_things(tmp_path)


def test_shards_without_a_manifest_are_not_taken_for_those_of_a_new_one(tmp_path):
    store = Store(tmp_path)
    store.write_manifest(manifest())
    store.append(1, [(0, 5)], records(0, 5))
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"has shards but no manifest\.json"):
        Store(tmp_path)


def test_shards_of_earlier_names_are_read(tmp_path):
    """Before, the name of the description had no checksum."""
    store = Store(tmp_path)
    store.write_manifest(manifest())
    store.append(1, [(0, 5)], records(0, 5))
    described = next(tmp_path.glob("view-*.json"))
    old = described.rename(tmp_path / "view-00001-000000000000.json")
    assert Store(tmp_path).missing(1, 5) == []
    (tmp_path / json.loads(old.read_text())["file"]).unlink()
    assert f"delete {old} to have it filled again" in Store(tmp_path).verify(KIND)[0]


def test_leftovers_of_killed_processes_are_removed_after_a_day(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.write_manifest(manifest())
    store.append(1, [(0, 5)], records(0, 5))
    whole = sorted(os.listdir(tmp_path))
    for name in (
        "view-00001-000000000005-00000000.npy",
        ".view-00001-000000000005-00000000.npy.99999999.tmp",
    ):
        (tmp_path / name).write_bytes(b"half")
    store.remove_leftovers()
    assert len(os.listdir(tmp_path)) == len(whole) + 2  # a running process may be writing them
    now = store_module.time.time()
    monkeypatch.setattr(store_module.time, "time", lambda: now + 90000)
    store.remove_leftovers()
    assert sorted(os.listdir(tmp_path)) == whole
