"""Check losses that measure a teacher on the training images before the first step."""

from __future__ import annotations

from collections.abc import Mapping

from ppcls.config.checks.networks import Networks
from ppcls.config.checks.transform_chains import EVALUATION, transform_chains
from ppcls.config.checks.uses import Use
from ppcls.config.mistakes import Findings, join
from ppcls.config.schema import Recipe

_BY_LOGITS = "DistillationWKDLogitLoss"


def check_measured_teachers(
    recipe: Recipe, uses: list[Use], networks: Networks, mode: str, findings: Findings
) -> None:
    """Check that these teachers do not change, and that the recipe says how the images are prepared.

    Args:
        recipe: the recipe, checked section by section.
        uses: the networks that each loss of ``Loss.Train`` names.
        networks: the networks of the recipe.
        mode: the command.
        findings: receives the mistakes.
    """
    for use in uses:
        option = _measuring(use)
        if option is None or mode != "train":
            continue
        place = join(use.path, option)
        why = "the teacher is measured before the first step"
        for _, (_, teacher) in use.pairs:
            members = networks.arch.members([teacher])
            changing = sorted(name for name in members if _changes(name, networks))
            if changing:
                text = f"{why}, but {', '.join(changing)} changes while the run trains"
                findings.error(place, f"{text}; freeze it (Arch.freeze_params_list, frozen_mode: eval)")
        if recipe.TeacherStore is None and not transform_chains(recipe).get(EVALUATION):
            findings.error(place, f"{why} on images as {EVALUATION} prepares them, which is missing")


def _measuring(use: Use) -> str | None:
    """Return the option with which a loss measures its teachers; None if it does not."""
    if use.options.get("standardize_teacher") is True:
        return "standardize_teacher"
    return "cost" if use.name == _BY_LOGITS and use.options.get("cost") == "logits" else None


def _changes(name: str, networks: Networks) -> bool:
    """Tell whether a network trains, or follows the mode of training."""
    network = networks.members.get(name)
    if network is None:
        return False  # reported where it is named
    modes = networks.arch.options.get("frozen_mode", "eval")
    mode = modes.get(name, "eval") if isinstance(modes, Mapping) else modes
    head_frozen = networks.arch.find(name).head.frozen
    return not (network.frozen or head_frozen) or mode == "train"
