"""Deployment: classify images with an exported folder, without the code that trains networks."""

from __future__ import annotations

from ppcls.deploy.predictor import Predictor

__all__ = ["Predictor"]
