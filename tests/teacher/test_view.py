"""Where the positions of a view are, compared with a plain array of positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ppcls.teacher.view import View

ROWS = 30
RUN = st.tuples(st.integers(0, ROWS - 1), st.integers(1, 12)).map(
    lambda run: (run[0], min(run[1], ROWS - run[0]))
)


@given(
    shards=st.lists(st.lists(RUN, min_size=1, max_size=4), max_size=6),
    looked=st.sets(st.integers(0, 5)),
    first=st.integers(0, ROWS),
    count=st.integers(1, ROWS),
)
def test_a_position_belongs_to_the_shard_that_had_it_first(shards, looked, first, count):
    view = View()
    owners = np.full((ROWS, 2), -1)
    for number, runs in enumerate(shards):
        view.add(number, np.array(runs))
        row = 0
        for position, length in runs:
            for place in range(position, position + length):
                if owners[place, 0] < 0:
                    owners[place] = number, row + place - position
            row += length
        if number in looked:  # pieces are sorted when somebody looks, also between two shards
            view.missing(ROWS)
    found = np.full((ROWS, 2), -1)
    last = -1
    for piece in view.within(first, count):
        assert piece.position > last
        last = piece.position + piece.count - 1
        for place in range(piece.count):
            found[piece.position + place] = piece.shard, piece.row + place
    inside = slice(first, first + count)
    np.testing.assert_array_equal(found[inside], owners[inside])
    assert (found[:first] == -1).all()
    assert (found[first + count :] == -1).all()
    missing = [place for start, length in view.missing(ROWS) for place in range(start, start + length)]
    assert missing == np.flatnonzero(owners[:, 0] < 0).tolist()
