"""The parts of a recipe that an export needs: the transforms, and some images for a check."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcls.config import Recipe
from ppcls.config.checks.image_shape import check_exported_shape
from ppcls.config.checks.transform_chains import transforms_of_evaluation
from ppcls.data import build_transforms, list_images, read_image
from ppcls.errors import ConfigError, DataError
from ppcls.logger import LOGGER

_IMAGES = 4


def deployed_transforms(config: Recipe) -> list[dict[str, Any]]:
    """Return the transforms that an export describes: those of ``Infer``, else those of evaluation.

    Raises:
        ConfigError: if there are none, or the images have another shape than ``Global.image_shape``.
    """
    problem = check_exported_shape(config)
    if problem is not None:
        raise ConfigError(": ".join(problem))
    return config.Infer.transforms or transforms_of_evaluation(config) or []


def export_sample(config: Recipe, operations: list[dict[str, Any]]) -> np.ndarray | None:
    """Return up to four images of ``Infer.infer_imgs`` as input of the network, [N, C, H, W].

    Returns:
        None if there are none of the right shape; the reason is logged.
    """
    wanted = tuple(config.Global.image_shape)
    try:
        chain = build_transforms(operations)
        files = list_images(config.Infer.infer_imgs or [])[:_IMAGES]
        images = [read_image(name, chain) for name in files]
        fitting = [image for image in images if image.shape == wanted]
        if not fitting:
            raise DataError(f"images of shape {list(images[0].shape)}, Global.image_shape is {list(wanted)}")
    except DataError as error:
        reason = error if config.Infer.infer_imgs else "not set"
        LOGGER.info("Infer.infer_imgs: %s; the export is checked on random input", reason)
        return None
    return np.stack(fitting)
