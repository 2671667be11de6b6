"""The engine: train, evaluate, infer, export."""

from ppcls.engine.engine import Engine

__all__ = ["Engine"]
