"""What reading weights asks of a network."""

from __future__ import annotations

from collections.abc import Mapping


class Loadable:
    """Base class of networks that say more about their weights than their names and shapes.

    Attributes:
        registered_name: the name the network was built by; empty for a class that is used by itself.
        former_names: names that earlier versions gave parameters, and those of today; files with the former
            are read too.
        former_shapes: shapes that earlier versions gave parameters, and what to do about a file with them.
        former_answer: the option with which the network answers as in earlier versions, which had the same
            parameters; empty if it answers so anyway.
    """

    registered_name: str = ""
    former_names: Mapping[str, str] = {}
    former_shapes: Mapping[str, tuple[tuple[int, ...], str]] = {}
    former_answer: str = ""

    def frozen_prefixes(self) -> tuple[str, ...]:
        """Return the prefixes, such as ``Teacher.``, of the names of frozen networks' parameters."""
        return ()
