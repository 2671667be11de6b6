"""Knowledge distillation for image classification on PaddlePaddle, driven by YAML files.

``import ppcls`` is cheap: Paddle is imported when a network is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ppcls.errors import PADDLE_MISSING

if TYPE_CHECKING:
    from ppcls.arch import create_model, list_models

__version__ = "0.2.0"
__all__ = ["__version__", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    if name in ("create_model", "list_models"):
        try:
            import ppcls.arch
        except ModuleNotFoundError as error:
            if error.name != "paddle":
                raise
            raise ModuleNotFoundError(PADDLE_MISSING, name="paddle") from None

        return getattr(ppcls.arch, name)
    raise AttributeError(f"module 'ppcls' has no attribute {name!r}")
