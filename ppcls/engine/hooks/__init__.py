"""Hooks of the training loop, one file for each purpose; :class:`Hook` is their base class."""

from ppcls.engine.hooks.base import Hook

__all__ = ["Hook"]
