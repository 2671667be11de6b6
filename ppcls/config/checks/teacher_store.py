"""Check the section ``TeacherStore``: what must be there for outputs of teachers to be stored."""

from __future__ import annotations

from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import DataSpec, Recipe
from ppcls.registry import SAMPLERS

_PLACE = "TeacherStore"


def check_teacher_store(recipe: Recipe, mode: str, findings: Findings) -> None:
    """Check that there is something to store, and that every batch of a view has the same images again."""
    spec = recipe.TeacherStore
    if spec is None:
        return
    if not spec.path:
        findings.error(f"{_PLACE}.path", "missing: the folder of the store")
    if mode != "train":
        return
    if spec.views is not None and spec.views > recipe.Global.epochs:
        text = f"{spec.views}, but the run has {recipe.Global.epochs} epochs and fills no more than these"
        findings.warn(f"{_PLACE}.views", text)
    if recipe.Global.seed is None:
        text = "null, but the images of a store are those of its seed; give a number"
        findings.error("Global.seed", text)
    for part, data in recipe.DataLoader.parts.items():
        if part != "Eval":
            _check_data(data, f"DataLoader.{part}", findings)


def _check_data(data: DataSpec, path: str, findings: Findings) -> None:
    if (data.dataset or {}).get("on_error") == "skip":
        text = (
            "skip, but a batch that lacks images cannot be stored; `ppcls check-data` finds those to take out"
        )
        findings.error(join(path, "dataset.on_error"), text)
    name = (data.sampler or {}).get("name")
    if isinstance(name, str) and name in SAMPLERS and SAMPLERS.trait(name, "multi_scale"):
        text = f"{name} changes the size of images from batch to batch, which {_PLACE} does not allow"
        findings.error(join(path, "sampler.name"), text)
