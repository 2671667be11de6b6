"""The output of `ppcls layers`: the layers of a recipe's networks, and which layers have the same shape."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ppcls.arch.input_adapter import take_adapter
from ppcls.arch.inspect import Inspection, LayerOutput, inspect_network
from ppcls.config import ArchSpec
from ppcls.config.binding import takes
from ppcls.config.interpolation import resolve
from ppcls.config.loading import find_recipe, override, read
from ppcls.config.mistakes import Findings
from ppcls.config.plugins import with_plugins
from ppcls.errors import ConfigError
from ppcls.registry import BACKBONES
from ppcls.report.tables import aligned

# Options that only choose among the layers. They are ignored, so that the layers of a recipe in which these
# options are still wrong can be shown too.
_CHOICES = ("return_patterns", "return_stages", "stop_after", "freeze_befor")


@dataclass(frozen=True)
class Listed:
    """A network of a recipe with its layers.

    Attributes:
        title: its name in the recipe; "" for a plain network.
        frozen: whether it does not train.
        seen: its layers.
    """

    title: str
    frozen: bool
    seen: Inspection


def read_arch(path: str | Path, overrides: Sequence[str] = ()) -> tuple[ArchSpec, list[int]]:
    """Read the networks of a recipe, without a check of the rest.

    Returns:
        ``Arch`` and ``Global.image_shape``.

    Raises:
        ConfigError: if the file cannot be read or has no ``Arch``.
    """
    file = find_recipe(path)
    tree = read(file)
    for text in overrides:
        try:
            override(tree, text)
        except ConfigError as error:
            raise ConfigError(f"-o {text}: {error}") from None
    findings = Findings()
    tree = with_plugins(resolve(tree), file, findings)
    findings.finish(str(path))
    arch = tree.get("Arch")
    settings = tree.get("Global")
    if not isinstance(arch, dict) or not isinstance(arch.get("name"), str):
        raise ConfigError(f"{path}: Arch: expected a network with its name, got {arch!r}")
    shape = (settings or {}).get("image_shape") if isinstance(settings, dict | None) else None
    return ArchSpec.read(arch), [3, 224, 224] if shape is None else shape


def list_layers(arch: ArchSpec | Mapping[str, Any], image_shape: Sequence[int]) -> list[Listed]:
    """List the layers of every network of ``Arch`` whose input is images.

    In a chain (AttentionModel) that is only the first one; the others get its features.

    Args:
        arch: the networks of a recipe, or the node.
        image_shape: [C, H, W] of the images; a network with its own ``input_size`` gets that size.

    Raises:
        ConfigError: if the node is not a network, or a network does not accept such images.
    """
    _check_shape(image_shape)
    found = []
    arch = ArchSpec.read(arch)
    for network in [arch] if arch.is_chain else arch.children or [arch]:
        head = network.head
        bare = {key: value for key, value in head.options.items() if key not in _CHOICES}
        if head.class_num is not None and _has_option(head.name, "class_num"):
            bare.setdefault("class_num", head.class_num)
        adapter = take_adapter(bare, head.path)
        size = adapter.size if adapter is not None and adapter.size is not None else image_shape[1:]
        seen = inspect_network(bare, [image_shape[0], *size], head.path)
        found.append(Listed(network.title, head.frozen, seen))
    return found


def _check_shape(shape: Any) -> None:
    whole = isinstance(shape, Sequence) and all(type(side) is int and side > 0 for side in shape)
    if not whole or len(shape) != 3:
        raise ConfigError(f"the shape of an image: expected channels, height, width, got {shape!r}")


def _has_option(name: str, option: str) -> bool:
    return name in BACKBONES and takes(BACKBONES[name], option)


def render_layers(networks: Sequence[Listed], stages_only: bool = False) -> str:
    """Return the text of `ppcls layers`.

    Args:
        networks: the result of `list_layers`.
        stages_only: show only the last layers of stages.
    """
    parts = [_layer_table(network, stages_only) for network in networks]
    parts += [_pair(student, teacher, stages_only) for student, teacher in _pairs(networks)]
    return "\n\n".join(parts)


def _layer_table(network: Listed, stages_only: bool) -> str:
    seen = network.seen
    title = f"{network.title}: {seen.name}" if network.title else seen.name
    head = f"{title}{' (frozen)' if network.frozen else ''}, images {list(seen.image_shape)}"
    if seen.parameters is not None and seen.multiply_adds is not None:
        head += f", {seen.parameters / 1e6:.2f} M parameters, {seen.multiply_adds / 1e9:.3f} G multiply-adds"
    rows = [
        (layer.descriptor, layer.kind, layer.shape or "-", "" if layer.stage is None else str(layer.stage))
        for layer in _chosen(seen, stages_only)
    ]
    notes = []
    if not rows:
        notes.append(f"{seen.name} has no stages; leave out --stages")
    else:
        notes.append(aligned(("layer", "type", "output", "stage"), rows))
    if any(row[2] == "-" for row in rows):
        notes.append('"-": does not run by itself, so it has no output to return')
    repeated = [layer.descriptor for layer in _chosen(seen, stages_only) if layer.runs > 1]
    if repeated:
        notes.append(f"run several times, the last output counts: {', '.join(repeated)}")
    return "\n".join([head, *notes])


def _chosen(seen: Inspection, stages_only: bool) -> list[LayerOutput]:
    layers = [layer for layer in seen.layers if layer.stage is not None or not stages_only]
    return sorted(layers, key=lambda layer: layer.stage or 0) if stages_only else layers


def _pairs(networks: Sequence[Listed]) -> list[tuple[Listed, Listed]]:
    """Return pairs of student and teacher: trained and frozen networks, or all pairs if none is frozen."""
    students = [network for network in networks if not network.frozen]
    teachers = [network for network in networks if network.frozen]
    if not teachers:
        return list(combinations(networks, 2))
    return [(student, teacher) for student in students for teacher in teachers]


def _pair(student: Listed, teacher: Listed, stages_only: bool) -> str:
    one = _by_shape(student.seen, stages_only)
    two = _by_shape(teacher.seen, stages_only)
    what = "stages" if stages_only else "layers"
    lines = [f"{student.title} and {teacher.title}, {what} of the same shape:"]
    for shape in (shape for shape in one if shape in two):
        lines.append(f"  {shape}")
        lines += _side_by_side(student.title, teacher.title, one[shape], two[shape])
    if len(lines) == 1:
        lines.append("  none")
    lines.append(f"{student.title} and {teacher.title}, stages of the same height and width, other channels:")
    before = len(lines)
    one = _by_shape(student.seen, True)
    two = _by_shape(teacher.seen, True)
    for shape, names in one.items():
        for other, others in two.items():
            if shape != other and _size(shape) is not None and _size(shape) == _size(other):
                lines.append(f"  {shape} and {other}")
                lines += _side_by_side(student.title, teacher.title, names, others)
    if len(lines) == before:
        lines.append("  none")
    return "\n".join(lines)


def _by_shape(seen: Inspection, stages_only: bool) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for layer in _chosen(seen, stages_only):
        if layer.shape:
            found.setdefault(layer.shape, []).append(layer.descriptor)
    return found


def _size(shape: str) -> str | None:
    """Return height and width from the shape of a map; None for other shapes."""
    match = re.fullmatch(r"\[\d+, (\d+, \d+)\]", shape)
    return match[1] if match else None


def _side_by_side(first: str, second: str, one: Sequence[str], two: Sequence[str]) -> list[str]:
    width = max(len(first), len(second)) + 2
    columns = max(shutil.get_terminal_size().columns, 40)
    return [
        textwrap.fill(
            ", ".join(names),
            columns,
            initial_indent=f"    {title.ljust(width)}",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for title, names in ((first, one), (second, two))
    ]
