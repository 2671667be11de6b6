"""Deployment: classify images with an exported folder. Needs nothing of what trains networks."""

from __future__ import annotations

from ppcls.deploy.predictor import Predictor

__all__ = ["Predictor"]
