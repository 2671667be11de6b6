"""Names in one block of bytes are the same names."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcls.data import names as names_module
from ppcls.data.fingerprint import fingerprint_of
from ppcls.data.names import Names, NamesCollected

TEXTS = st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"]))


@given(st.lists(TEXTS, max_size=20))
def test_names_are_those_of_the_list(texts):
    names = Names.of(texts)
    assert list(names) == texts
    assert [names[place] for place in range(len(names))] == texts
    assert [names[place - len(names)] for place in range(len(names))] == texts
    assert names[1:5] == texts[1:5]
    assert list(pickle.loads(pickle.dumps(names))) == texts  # noqa: S301
    labels = np.arange(len(texts))
    assert fingerprint_of("a", names, labels) == fingerprint_of("a", texts, labels)


def test_names_are_collected_in_pieces_of_any_size(monkeypatch):
    """The places of line ends are searched in parts of the content; a name may go over the end of a part."""
    monkeypatch.setattr(names_module, "_SEARCHED", 5)
    texts = [["", "图.jpg"], [], ["a" * 20], ["", "", "b"]]
    collected = NamesCollected()
    for piece in texts:
        collected.extend(piece)
    assert len(collected) == 6
    assert list(collected.names()) == [name for piece in texts for name in piece]
    collected = NamesCollected()
    collected.extend(["a\nb", "c"])
    with pytest.raises(ValueError, match="line end"):
        collected.names()


def test_many_names_are_decoded_block_by_block():
    texts = [f"图/{number}.jpg" for number in range(25_000)]
    assert list(Names.of(texts)) == texts


def test_places_that_do_not_exist():
    names = Names.of(["a", "b"])
    for place in (2, -3):
        with pytest.raises(IndexError, match="there are 2 names"):
            names[place]
    with pytest.raises(ValueError, match="line end"):
        Names.of(["a\nb"])
