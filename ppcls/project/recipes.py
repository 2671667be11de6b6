"""The texts of the recipes of a project."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ppcls.config.nodes import Node
from ppcls.errors import DataError
from ppcls.project.layout import DISTILL, NAMES, TRAIN_LIST, VAL_LIST, shell_path
from ppcls.project.methods import METHODS, loss_lines
from ppcls.project.planning import Plan, Training
from ppcls.project.summary import DataSummary


def shared_recipe(summary: DataSummary, plan: Plan, out: Path) -> str:
    """Return the recipe with what the others share; by itself, it trains the student.

    Args:
        summary: the data.
        plan: the defaults.
        out: folder of the project.

    Raises:
        DataError: for a folder that a recipe cannot name.
    """
    accuracy = _accuracy("TopkAcc: {", summary)
    rate = plan.student.learning_rate
    chain = "small_images" if plan.small else "images"
    lines = [
        "# What the recipes of this project share. Written by `ppcls init`; change what you like.",
        f"# Images are cut, mirrored and normalised as in _base_/{chain}.yaml of the package.",
        f"_base_: [_base_/baseline.yaml, _base_/{chain}.yaml]",
        "Global:",
        f"  image_size: {plan.image_size}  # pixels of a side; all transforms follow",
        f"  output_dir: {_quoted(out / 'output')}",
        "  keep_last: 1",
        f"Arch: {{name: {plan.student.network}, class_num: {summary.class_num}}}",
        "Optimizer:",
        f"  {{name: Momentum, momentum: 0.9, lr: {{name: Cosine, learning_rate: {rate}}},",
        f"   regularizer: {{name: L2, coeff: {plan.student.weight_decay}}}}}",
        f"Metric: {{Train: {accuracy}, Eval: {accuracy}}}",
        "DataLoader:",
    ]
    for name, part, file in (("Train", summary.train, TRAIN_LIST), ("Eval", summary.val, VAL_LIST)):
        options = part.options or {
            "name": "ImageNetDataset",
            "image_root": str(summary.source.root),
            "cls_label_path": str(out / file),
        }
        shown = [f"{key}: {value if key == 'name' else _quoted(value)}" for key, value in options.items()]
        lines += [f"  {name}:", "    dataset:", *(f"      {text}" for text in shown)]
        batch = plan.batch_size if name == "Train" else max(plan.batch_size, 64)
        lines += [f"    sampler: {{batch_size: {batch}}}"]
    first = summary.val.path(0)
    lines += ["Infer:"]
    if summary.source.kind != "shards":
        lines += [f"  infer_imgs: {_quoted(os.path.abspath(first))}"]
    topk = min(5, summary.class_num)
    lines += [f"  PostProcess: {{topk: {topk}, class_id_map_file: {_quoted(out / NAMES)}}}"]
    return "\n".join(lines) + "\n"


def _schedule(training: Training) -> list[str]:
    rate = f"learning_rate: {training.learning_rate}, warmup_epoch: {training.warmup}"
    return ["Optimizer:", f"  lr: {{{rate}}}", f"  regularizer: {{coeff: {training.weight_decay}}}"]


def _global(training: Training, step: str) -> list[str]:
    return [
        "Global:",
        f"  epochs: {training.epochs}",
        f"  run_name: {step}",
    ]


def _pretrained(training: Training) -> str:
    return "True" if training.pretrained else "False"


def _beginning(training: Training) -> str:
    return "official ImageNet weights, downloaded once" if training.pretrained else "random weights"


def recipe_of_one(training: Training, out: Path, step: str) -> str:
    """Return the recipe of one network that learns from the labels.

    Args:
        training: how.
        out: folder of the project.
        step: ``teacher`` or ``student``.
    """
    recipe = shell_path(out / f"{step}.yaml")
    purpose = {
        "teacher": "The teacher: a large network learns from the labels.",
        "student": "The student alone: what the small network learns from the labels without a teacher.",
    }[step]
    lines = [
        f"# {purpose}",
        f"# Run: ppcls train -c {recipe}",
        "_base_: data.yaml",
        *_global(training, step),
        "Arch:",
        f"  name: {training.network}  # `ppcls models` lists all networks",
        f"  pretrained: {_pretrained(training)}  # begins with {_beginning(training)}",
        *_schedule(training),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(beginning: str, summary: DataSummary) -> str:
    ks = "[1, 5]" if summary.class_num > 5 else "[1]"
    return f"[{beginning}topk: {ks}}}]"


def recipe_of_both(plan: Plan, summary: DataSummary, out: Path, node: Node) -> str:
    """Return the recipe of the student that learns from the teacher.

    Args:
        plan: the defaults.
        summary: the data.
        out: folder of the project.
        node: the teacher, with its weights, as in ``Arch.models``.
    """
    teacher, student = plan.teacher, plan.student
    accuracy = _accuracy("DistillationTopkAcc: {model_key: Student, ", summary)
    lines = [
        f"# The student learns from labels and teacher. {METHODS[plan.method][0]}.",
        f"# Run: ppcls train -c {shell_path(out / DISTILL)}",
        "_base_: [data.yaml, _base_/distillation.yaml]",
        *_global(student, "distill"),
        "Arch:",
        "  models:",
        "    - Teacher:",
        *(f"        {_option(key, value)}" for key, value in node.items()),
        f"    - Student: {{name: {student.network}, pretrained: {_pretrained(student)}}}",
        "Loss:  # docs/methods/ explains it",
        "  Train:",
        *(
            f"    - {line}"
            for line in loss_lines(plan.method, teacher.network, student.network, student.epochs)
        ),
        *_schedule(student),
        "Metric:",
        f"  Train: {accuracy}",
        f"  Eval: {accuracy}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: str | Path) -> str:
    """Return a path as YAML, in quotes."""
    text = str(path)
    if "${" in text:
        raise DataError(f"{text}: recipes take ${{ as a reference to another value; rename the folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"{text!r}: the name is not UTF-8; rename the folder") from None
    return json.dumps(text, ensure_ascii=False)


def _option(key: str, value: Any) -> str:
    """Return an option of a network as one line of YAML."""
    text = value if key == "name" else _quoted(value) if isinstance(value, str) else json.dumps(value)
    return f"{key}: {text}"
