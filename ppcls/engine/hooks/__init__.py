"""What happens around the training loop: one file for each concern; :class:`Hook` is the base of all."""

from ppcls.engine.hooks.base import Hook

__all__ = ["Hook"]
