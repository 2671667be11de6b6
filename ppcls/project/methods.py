"""The losses of ``distill.yaml``, for methods that need no names of layers."""

from __future__ import annotations

from collections.abc import Callable

# The strength of DKD's second part, as published for these pairs; its best value grows with the teacher.
_DKD_BETA = {
    ("resnet32x4", "resnet8x4"): 8.0,
    ("resnet56", "resnet20"): 2.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
}
_LABELS = "DistillationGTCELoss: {{weight: {weight}, model_names: [Student]}}"
_PAIR = "\n        model_name_pairs: [[Student, Teacher]]"

Lines = list[str]


def _with_labels(weight: float, loss: str, options: str) -> Callable[[str, str, int], Lines]:
    """Return what writes a loss on the labels and one on the teacher."""
    lines = [_LABELS.format(weight=weight), f"{loss}: {{{options},{_PAIR}}}"]
    return lambda teacher, student, epochs: lines


def _dkd(teacher: str, student: str, epochs: int) -> Lines:
    beta = _DKD_BETA.get((teacher, student), 2.0)
    warmup = max(min(20, epochs // 12), 1)
    weight = f"{{name: LinearWarmup, value: 1.0, epochs: {warmup}}}"
    return [
        _LABELS.format(weight=1.0),
        f"DistillationDKDLoss: {{weight: {weight}, temperature: 4, alpha: 1.0, beta: {beta},{_PAIR}}}",
    ]


def _skd(teacher: str, student: str, epochs: int) -> Lines:
    return [f"DistillationSKDLoss: {{weight: 1.0, temperature: 4.0, multiplier: 2.0, alpha: 0.9,{_PAIR}}}"]


# Each with its title, and what writes its losses for (teacher, student, epochs).
METHODS: dict[str, tuple[str, Callable[[str, str, int], Lines]]] = {
    "kd": (
        "KD: labels, and the teacher's softened probabilities",
        _with_labels(0.1, "DistillationKLDivLoss", "weight: 0.9, temperature: 4"),
    ),
    "dkd": ("DKD: the teacher's answers about the right class and about the others, apart", _dkd),
    "dist": (
        "DIST: correlations of probabilities, within an image and within a class",
        _with_labels(1.0, "DistillationDISTLoss", "weight: 2.0, tau: 4.0"),
    ),
    "standardize": (
        "KD on logits of mean 0 and standard deviation 1",
        _with_labels(0.1, "DistillationKLDivLoss", "weight: 9.0, temperature: 2.0, standardize: True"),
    ),
    "nkd": (
        "NKD: the teacher's answers about the other classes, normalised",
        _with_labels(1.0, "DistillationNKDLoss", "weight: 1.0, temperature: 1.0, gamma: 1.5"),
    ),
    "wttm": (
        "WTTM: the teacher's softened probabilities without softening the student, weighted for each image",
        _with_labels(1.0, "DistillationWTTMLoss", "weight: 4.0, power: 0.2"),
    ),
    "rld": (
        "RLD: how certain the teacher is, and its answers about classes less probable than the label",
        _with_labels(1.0, "DistillationRLDLoss", "weight: 1.0, alpha: 1.0, beta: 0.5, temperature: 1.0"),
    ),
    "wsl": (
        "WSL: softened probabilities, weighted for each image",
        _with_labels(1.0, "DistillationWSLLoss", "weight: 2.25, temperature: 4"),
    ),
    "skd": ("SKD: probabilities of normalised logits, labels included", _skd),
    "hard": (
        "Hard: the teacher's decision as a second label",
        _with_labels(0.5, "DistillationHardLoss", "weight: 0.5"),
    ),
}


def loss_lines(method: str, teacher: str, student: str, epochs: int) -> Lines:
    """Return the entries of ``Loss.Train`` as lines of YAML.

    Args:
        method: a key of `METHODS`.
        teacher: name of the teacher's network.
        student: name of the student's network.
        epochs: epochs of the run.
    """
    return METHODS[method][1](teacher, student, epochs)
