"""What happens around the training loop: one file for each concern."""

from ppcls.engine.hooks.base import Hook

__all__ = ["Hook"]
