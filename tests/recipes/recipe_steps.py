"""What tests that train shipped recipes for a step or two share."""

from __future__ import annotations

from typing import Any

from ppcls.engine.hooks import Hook


def drop_keys(node: Any, keys: tuple[str, ...]) -> None:
    """Remove the keys from a tree, wherever they stand."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        drop_keys(value, keys)
    for key in keys:
        if isinstance(node, dict):
            node.pop(key, None)


class Recorder(Hook):
    """Keep the parts of the loss of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_step(self, run: Any, batch: Any) -> None:
        row = run.read()
        assert row is not None
        self.steps.append({name: value for name, value in row.items() if not name.startswith("top")})
