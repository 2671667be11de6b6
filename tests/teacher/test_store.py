"""Shards of a store: what was written is read, also after a death at any moment and in pieces of any size."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppcls.data.division import divide
from ppcls.errors import DataError
from ppcls.teacher.store import Store, join_runs
from ppcls.teacher.stored import Places

DTYPE = np.dtype([("index", "<u4"), ("T:logits", "<f4", (2,))])
ROWS = 24


def records(positions):
    """Records that say where they belong."""
    found = np.zeros(len(positions), DTYPE)
    found["index"] = positions
    found["T:logits"] = np.asarray(positions)[:, None] * [1.0, -1.0]
    return found


def filled(store, view, cuts):
    """Fill what is missing of a view, in shards that end at `cuts`."""
    for first, count in store.missing(view, ROWS):
        ends = sorted({first, first + count, *(cut for cut in cuts if first < cut < first + count)})
        for start, stop in zip(ends, ends[1:], strict=False):
            store.append(view, [(start, stop - start)], records(range(start, stop)))


@given(
    cuts=st.lists(st.integers(1, ROWS - 1)),
    asked=st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)),
)
@settings(max_examples=10)
def test_any_rows_are_read_from_shards_of_any_size(tmp_path_factory, cuts, asked):
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder)
    store.write_manifest({})
    filled(store, 2, cuts)
    position, count = asked[0], min(asked[1], ROWS - asked[0])
    for opened in (store, Store(folder)):
        assert opened.has(2, position, count)
        assert not opened.has(1, position, count)
        np.testing.assert_array_equal(
            opened.read(2, position, count), records(range(position, position + count))
        )
        assert opened.missing(2, ROWS) == []
        assert opened.verify(DTYPE) == []


def test_headers_are_read_by_one_thread(tmp_path, monkeypatch):
    """Python 3.11.4 to 3.11.7 sometimes fails where several threads parse, as NumPy does for each header."""
    store = Store(tmp_path)
    store.write_manifest({})
    filled(store, 1, [1, 2, 3])
    load, threads = np.load, set()
    monkeypatch.setattr(np, "load", lambda *a, **k: threads.add(threading.get_ident()) or load(*a, **k))
    assert store.verify(DTYPE) == []
    assert threads == {threading.get_ident()}


def test_rows_of_several_processes_come_back_in_order(tmp_path):
    """Two processes with 3 rows of each batch; then one process with 4 rows reads them."""
    store = Store(tmp_path)
    store.write_manifest({})
    for rank in (1, 0):
        places = Places((3, 3, 2), rank, 2)
        runs = [places.of_batch(number) for number in range(3)]
        positions = [p for first, count in runs for p in range(first, first + count)]
        store.append(1, join_runs(runs), records(positions))
    assert places.rows == 16
    one = Places((4, 4, 4, 4))
    for number in range(4):
        first, count = one.of_batch(number)
        np.testing.assert_array_equal(
            Store(tmp_path).read(1, first, count), records(range(first, first + count))
        )


@pytest.mark.parametrize("now", [1, 2, 4])
def test_other_processes_find_the_rows_of_those_that_filled_the_store(now):
    """Two processes with batches of 4, 4 and 3 rows; a part of the last one overlaps with its neighbour."""
    sizes = (4, 4, 3)
    division = divide(2, now, 1, sizes)
    assert division is not None
    found = [set(), set(), set()]
    for rank in range(now):
        places = Places(sizes, rank, 2, division)
        assert places.rows == 22
        for number in range(len(division)):
            part = division.part(rank, number)
            first, count = places.of_batch(number)
            former = Places(sizes, part.process, 2).of_batch(part.batch)
            row, length = part.rows(former[1])
            assert (first, count) == (former[0] + row, length)
            found[part.batch] |= set(range(first, first + count))
    assert found == [set(range(8)), set(range(8, 16)), set(range(16, 22))]


def test_overlapping_shards_of_two_machines_count_once(tmp_path):
    store = Store(tmp_path)
    store.write_manifest({})
    store.append(1, [(4, 8)], records(range(4, 12)))
    store.append(1, [(0, 6), (10, 4)], records([*range(6), *range(10, 14)]))
    for opened in (store, Store(tmp_path)):
        assert opened.missing(1, 16) == [(14, 2)]
        np.testing.assert_array_equal(opened.read(1, 0, 14), records(range(14)))


def test_death_at_any_moment_loses_what_was_not_complete_alone(tmp_path, monkeypatch):
    """Every write may be the last one; what is found afterwards is right, and the rest is filled."""
    for moment in range(9):
        folder = tmp_path / str(moment)
        left = [moment]

        def dying(own, left=left):
            def move(source, target):
                if not left[0]:
                    raise KeyboardInterrupt  # nothing that follows happens
                left[0] -= 1
                own(source, target)

            return move

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(os.replace))
            patch.setattr(os, "link", dying(os.link))
            try:
                store = Store(folder)
                store.write_manifest({})
                filled(store, 1, [6, 12, 18])
            except KeyboardInterrupt:
                pass
        store = Store(folder)
        whole = max(moment - 1, 0) // 2
        assert len(store.shards) == min(whole, 4)
        assert store.verify(DTYPE) == []
        if store.manifest is None:
            store.write_manifest({})
        filled(store, 1, [6, 12, 18])
        np.testing.assert_array_equal(Store(folder).read(1, 0, ROWS), records(range(ROWS)))


@pytest.mark.parametrize(
    "damage", [{}, [], {"file": "../x.npy"}, {"runs": []}, {"runs": [[0, -1]]}, {"crc32": "x"}]
)
def test_damaged_description_is_named(tmp_path, damage):
    store = Store(tmp_path)
    store.write_manifest({})
    store.append(1, [(0, 3)], records(range(3)))
    path = next(tmp_path.glob("view-*.json"))
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, **damage} if isinstance(damage, dict) and damage else damage))
    with pytest.raises(DataError, match=path.name):
        Store(tmp_path)


def test_every_flipped_bit_of_a_shard_is_found(tmp_path):
    store = Store(tmp_path)
    store.write_manifest({})
    store.append(1, [(0, 3)], records(range(3)))
    path = store.shards[0].path
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        assert "is damaged" in store.verify(DTYPE)[0]
    path.write_bytes(whole)
    assert store.verify(DTYPE) == []
    assert "another kind" in store.verify(np.dtype([("index", "<u4")]))[0]


def test_another_format_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="format 2, this version reads 1"):
        Store(tmp_path)
