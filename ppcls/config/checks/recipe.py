"""All checks of a recipe: sections, named nodes, what the mode needs, and what must fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppcls.config.checks.axis_order import check_axis_order
from ppcls.config.checks.batch_transforms import check_batch_transforms
from ppcls.config.checks.class_name_files import check_class_names
from ppcls.config.checks.image_shape import check_image_shape, check_inference_chain
from ppcls.config.checks.inference_transforms import check_inference_transforms
from ppcls.config.checks.losses_and_metrics import check_losses_and_metrics
from ppcls.config.checks.metrics import check_metrics
from ppcls.config.checks.multi_scale import check_multi_scale
from ppcls.config.checks.networks import check_networks
from ppcls.config.checks.normalisation import check_normalisation
from ppcls.config.checks.optimizer_scopes import check_optimizer_scopes
from ppcls.config.checks.own_preprocessing import check_own_preprocessing
from ppcls.config.checks.paddleclas import other_file
from ppcls.config.checks.postprocess import check_postprocess
from ppcls.config.checks.sections import check_section
from ppcls.config.checks.teacher_store import check_teacher_store
from ppcls.config.checks.transform_chains import transforms_of_evaluation
from ppcls.config.checks.unlabelled_images import check_unlabelled
from ppcls.config.image_size import check_image_size
from ppcls.config.mistakes import Findings
from ppcls.config.nodes import Options, RecipeTree
from ppcls.config.schema import REQUIRED, REQUIRED_WITH_EVAL, Recipe
from ppcls.errors import show


def check_recipe(tree: RecipeTree, mode: str, findings: Findings) -> Recipe:
    """Check a whole recipe.

    Args:
        tree: the file with its bases and overrides, interpolations resolved.
        mode: ``train``, ``eval``, ``infer`` or ``export``: decides which sections are required.
        findings: receives all mistakes and warnings.

    Returns:
        The recipe with every section and key, defaults filled in.
    """
    other = other_file(tree)
    if other is not None:
        findings.error(*other)
        return Recipe()
    tree = _with_settings_of_the_run(
        _with_infer_model_name(_with_save_interval(tree, findings), findings), findings
    )
    amp = tree.get("AMP")
    if isinstance(amp, dict) and "use_amp" not in amp:
        # As in PaddleClas, the section itself switches mixed precision on.
        tree = {**tree, "AMP": {"use_amp": True, **amp}}
    recipe = Recipe.from_dict(check_section(Recipe, tree, "", findings))
    recipe.Global.log_ranks = _ranks(recipe.Global.log_ranks, findings)
    _check_required(tree, recipe, mode, findings)
    check_image_size(recipe.Global.image_size, recipe.Global.image_shape, findings)
    check_normalisation(recipe, findings)
    check_multi_scale(recipe.DataLoader, findings)
    check_axis_order(recipe, findings)
    check_teacher_store(recipe, mode, findings)
    networks = check_networks(recipe.Arch, findings)
    check_metrics(recipe.Metric, networks, findings)
    recipe.Infer.PostProcess = check_postprocess(recipe.Infer.PostProcess, networks, findings)
    if networks is not None:
        check_losses_and_metrics(recipe, networks, mode, findings)
        check_class_names(recipe, networks, findings)
        check_own_preprocessing(recipe, networks.arch, findings)
        check_image_shape(recipe, networks, mode, findings)
        check_unlabelled(recipe, findings)
        check_batch_transforms(recipe, networks, findings)
        if mode == "train":
            check_optimizer_scopes(recipe, findings)
    if mode == "infer":
        check_inference_chain(recipe, findings)
    if mode != "eval":
        check_inference_transforms(recipe, findings)
    if not recipe.Infer.transforms:
        recipe.Infer.transforms = transforms_of_evaluation(recipe)
    return recipe


def _with_infer_model_name(tree: RecipeTree, findings: Findings) -> RecipeTree:
    """Move ``Global.infer_model_name``, which the tutorial uses too, to the section ``Arch``."""
    section = tree.get("Global")
    arch = tree.get("Arch")
    if not isinstance(section, dict) or section.get("infer_model_name") is None or not isinstance(arch, dict):
        return tree
    name = section["infer_model_name"]
    if "models" not in arch:
        findings.error("Global.infer_model_name", f"{show(name)}, but Arch is a single network; leave it out")
        return tree
    _warn_of_another("Global.infer_model_name", name, "Arch.infer_model_name", arch, findings)
    return {**tree, "Arch": {**arch, "infer_model_name": name}}


def _warn_of_another(used: str, value: Any, unused: str, section: Options, findings: Findings) -> None:
    """Warn if the same setting has another value at the path `unused`, in `section`, which has no effect."""
    other = section.get(unused.rpartition(".")[2])
    if other is not None and other != value:
        findings.warn(
            unused, f"{show(other)} has no effect, because {used} is {show(value)}; leave one of them out"
        )


def _with_save_interval(tree: RecipeTree, findings: Findings) -> RecipeTree:
    """Write ``save_interval: -1``, with which PaddleClas saves no ``epoch_N``, as ``keep_last: 0``."""
    section = tree.get("Global")
    if not isinstance(section, dict) or section.get("save_interval") != -1:
        return tree
    if section.get("keep_last"):
        text = f"{show(section['keep_last'])} has no effect, because Global.save_interval is -1"
        findings.warn("Global.keep_last", f"{text}; leave one of them out")
    return {**tree, "Global": {**section, "save_interval": 1, "keep_last": 0}}


def _with_settings_of_the_run(tree: RecipeTree, findings: Findings) -> RecipeTree:
    """Move settings that PaddleClas has in ``Arch``, but which concern the whole run, to ``Global``."""
    section = tree.get("Global") or {}
    arch = tree.get("Arch")
    if not (isinstance(arch, dict) and isinstance(section, dict)):
        return tree
    moved = {key: arch[key] for key in ("use_sync_bn", "infer_add_softmax") if key in arch}
    for key, value in moved.items():
        _warn_of_another(f"Arch.{key}", value, f"Global.{key}", section, findings)
    arch = {key: value for key, value in arch.items() if key not in moved}
    return {**tree, "Global": {**section, **moved}, "Arch": arch}


def _ranks(given: str | int | list[int], findings: Findings) -> list[int]:
    """Return ``Global.log_ranks``, which PaddleClas writes as text, as a list of numbers."""
    texts = [str(part).strip() for part in (given if isinstance(given, list) else str(given).split(","))]
    if not texts or not all(text.isdecimal() for text in texts):
        findings.error("Global.log_ranks", value=given, expected="numbers of processes such as 0,1")
        return [0]
    return [int(text) for text in texts]


def _misspelt(path: str, findings: Findings) -> bool:
    """Tell whether an unknown key was reported that is probably a misspelt part of `path`."""
    steps = path.split(".")
    return any(
        mistake.path.rpartition(".")[0] == ".".join(steps[:depth]) and step in mistake.suggestions
        for depth, step in enumerate(steps)
        for mistake in findings.mistakes
    )


def _check_required(tree: RecipeTree, recipe: Recipe, mode: str, findings: Findings) -> None:
    wanted = REQUIRED[mode]
    if mode == "train" and recipe.Global.eval_during_train:
        wanted += REQUIRED_WITH_EVAL
    if recipe.Loss.Eval and not recipe.Metric.Eval and "Metric.Eval" in wanted:
        wanted = tuple(path for path in wanted if path != "Metric.Eval")
        if mode == "train" and not _misspelt("Metric.Eval", findings):
            findings.warn("Metric.Eval", "missing; the loss of Loss.Eval chooses best_model")
    for path in wanted:
        node: Any = tree
        for step in path.split("."):
            node = node.get(step) if isinstance(node, Mapping) else None
        if (node is None or node in ([], {})) and not _misspelt(path, findings):
            why = (
                " while Global.eval_during_train is true"
                if path in REQUIRED_WITH_EVAL and mode == "train"
                else ""
            )
            findings.error(path, f"missing; {mode} needs it{why}")
