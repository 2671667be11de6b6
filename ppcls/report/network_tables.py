"""The output of `ppcls models --details`: size, cost, published accuracy and weights of networks.

Sizes and costs of our own networks at their usual image size are stored in ``arch/sizes.json``, so that they
are shown at once and without Paddle. After a change of the networks, run

    python -m ppcls.report.network_tables

in the project folder: it measures them all again and writes that file and ``docs/networks.md``.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ppcls.errors import ConfigError, WeightsError
from ppcls.plugins import any_loaded
from ppcls.registry import BACKBONES, has_plugins
from ppcls.report.tables import aligned, markdown
from ppcls.weights import official_url
from ppcls.weights.sources import cached_path

CONVENTION = (
    "M parameters: without BatchNorm statistics. G multiply-adds: of one image, in convolutions and matrix "
    "products (attention included); normalisation, activations, pooling and sums are not counted, so "
    "paddle.flops, which counts some of them, shows a few percent more."
)
SIZES = "sizes.json"
_HEADER = ("network", "input", "M parameters", "G multiply-adds", "top-1 %", "SSLD top-1 %")
_NUMBERS = (2, 3, 4, 5)


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        name: its registered name.
        input: [C, H, W] that `multiply_adds` is for.
        parameters: number of trainable numbers; None if it does not accept such images.
        multiply_adds: multiply-adds of one image; None if it does not accept such images.
        top1: published top-1 accuracy in percent, on ImageNet-1k unless `note` says otherwise.
        ssld_top1: published accuracy of the weights distilled by SSLD.
        source: publication of the accuracies.
        note: remark about the accuracies.
        weights: existing official weights: ``plain``, ``ssld``.
        cached: those of them that are in the cache.
        refused: the reason why it does not accept such images.
    """

    name: str
    input: tuple[int, ...]
    parameters: int | None = None
    multiply_adds: int | None = None
    top1: float | None = None
    ssld_top1: float | None = None
    source: str | None = None
    note: str | None = None
    weights: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    refused: str | None = None


def _read(name: str) -> dict[str, Any]:
    # Not resources.files("ppcls.arch"): that would import the networks and Paddle.
    found: dict[str, Any] = json.loads(resources.files("ppcls").joinpath(f"arch/{name}").read_text("utf-8"))
    return found


@cache
def _published() -> dict[str, dict[str, Any]]:
    return _read("published.json")


@cache
def _sizes() -> dict[str, dict[str, Any]]:
    return _read(SIZES)


def network_names(pattern: str = "*") -> list[str]:
    """Return the sorted names of all networks that match `pattern`; Paddle is only imported for plug-ins."""
    if has_plugins() or any_loaded():
        from ppcls.arch import list_models

        return list_models(pattern)
    return sorted(name for name in _sizes() if fnmatch.fnmatchcase(name, pattern))


def stored_facts() -> dict[str, str]:
    """Return size, cost and published accuracy of our own networks as one line each, without Paddle."""
    facts = {}
    for name, size in _sizes().items():
        if "parameters" in size:
            facts[name] = f"{size['parameters'] / 1e6:.2f} M parameters"
            facts[name] += f", {size['multiply_adds'] / 1e9:.3f} G multiply-adds"
            top1 = _published()["networks"].get(name, {}).get("top1")
            facts[name] += f", published top-1 {top1:.2f} %" if top1 is not None else ""
    return facts


def usual_shape(name: str) -> tuple[int, int, int]:
    """Return [C, H, W] of the images that a network's published accuracy was measured with."""
    side = _published()["networks"].get(name, {}).get("input", 224)
    return (3, side, side)


def measure(name: str, shape: Sequence[int]) -> dict[str, Any]:
    """Build and trace a network, which takes about a second.

    Returns:
        ``parameters`` and ``multiply_adds``, or ``refused`` with the reason.
    """
    from ppcls.arch.inspect import inspect_network

    class_num = _published()["networks"].get(name, {}).get("class_num", 1000)
    try:
        seen = inspect_network({"name": name, "class_num": class_num}, tuple(shape), "ppcls models")
    except ConfigError as error:
        return {"refused": str(error)}
    return {"parameters": seen.parameters, "multiply_adds": seen.multiply_adds}


def describe_models(names: Iterable[str], image_shape: Sequence[int] | None = None) -> list[Row]:
    """Collect what is known about networks.

    Args:
        names: registered names.
        image_shape: [C, H, W]; None for the size that a network's published accuracy was measured at, which
            is the size of the stored figures. At other sizes every network is measured.
    """
    rows = []
    for name in tqdm(list(names), unit="network", leave=False, disable=None):
        fact = _published()["networks"].get(name, {})
        shape = usual_shape(name) if image_shape is None else tuple(image_shape)
        stored = _sizes().get(name)
        size = stored if stored is not None and shape == usual_shape(name) else measure(name, shape)
        weights = _official(name)
        rows.append(
            Row(
                name,
                shape,
                **size,
                top1=fact.get("top1"),
                ssld_top1=fact.get("ssld_top1"),
                source=_published()["sources"].get(fact.get("source")),
                note=fact.get("note"),
                weights=tuple(weights),
                cached=tuple(kind for kind, url in weights.items() if cached_path(url).is_file()),
            )
        )
    return rows


def _official(name: str) -> dict[str, str]:
    """Return the addresses of the official weights by kind, ``plain`` and ``ssld``."""
    try:
        url = official_url(name)
    except WeightsError:
        return {}
    if "_ssld_" in url:
        return {"ssld": url}
    ssld = "ssld_top1" in _published()["networks"].get(name, {})
    return {"plain": url, "ssld": official_url(name, use_ssld=True)} if ssld else {"plain": url}


def render_models(rows: Sequence[Row]) -> str:
    """Return the table of `ppcls models --details`, with sources and explanations."""
    cells = [(*_cells(row), ", ".join(row.weights) or "-", ", ".join(row.cached) or "-") for row in rows]
    parts = [aligned((*_HEADER, "weights", "cached"), cells, _NUMBERS), textwrap.fill(CONVENTION, 110)]
    parts += [f"{row.name}: {row.note}" for row in rows if row.note]
    parts += [row.refused for row in rows if row.refused]
    parts += [f"accuracies: {source}" for source in _sources(rows)]
    return "\n".join(parts)


def to_json(rows: Sequence[Row]) -> str:
    """Return the same as a JSON list with exact numbers."""
    return json.dumps([asdict(row) for row in rows], indent=1)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        ",".join(map(str, row.input)),
        "-" if row.parameters is None else f"{row.parameters / 1e6:.2f}",
        "-" if row.multiply_adds is None else f"{row.multiply_adds / 1e9:.3f}",
        "-" if row.top1 is None else str(round(row.top1, 2)),
        "-" if row.ssld_top1 is None else str(round(row.ssld_top1, 2)),
    )


def _sources(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.source for row in rows if row.source))


_HEAD = """# Networks

Made by `python -m ppcls.report.network_tables`; do not edit. `ppcls models 'ResNet*' --details`
shows the same at any input size, with what is in the cache; `ppcls layers ResNet18` shows what
`return_patterns` can name. Their options are in [network_options.md](network_options.md).

{convention}
RepVGG and PP-LCNetV2 are counted as they train; exported, their branches are merged and they are smaller.

Accuracies are published ones, top-1 on the 50 000 validation images of ImageNet-1k unless a note says
otherwise; a network without one has none that we know of. They were not measured with this project.
"""


def document() -> str:
    """Return docs/networks.md: the families, each with its paper and its networks."""
    rows = describe_models(network_names())
    parts = [_HEAD.format(convention=textwrap.fill(CONVENTION, 110))]
    for module, names in families().items():
        own = [row for row in rows if row.name in names]
        parts += [
            f"## {module.rpartition('.')[2]}",
            _paper(sys.modules[module].__doc__ or ""),
            markdown(_HEADER, [_cells(r) for r in own], _NUMBERS),
        ]
        parts += [f"{note}: {', '.join(names)}." for note, names in _notes(own).items()]
        parts += [f"Accuracies: {'; '.join(sources)}." for sources in [_sources(own)] if sources]
    return re.sub(r"\n{3,}", "\n\n", "\n\n".join(parts)) + "\n"


def _paper(docstring: str) -> str:
    """Return the beginning of a module's docstring up to the paragraph that names the paper."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    naming = [index for index, text in enumerate(paragraphs) if "arXiv" in text]
    return "\n\n".join(paragraphs[: naming[0] + 1 if naming else 1])


def markdown_row(row: Row) -> str:
    """Return the line of the document for a network."""
    return markdown(_HEADER, [_cells(row)], _NUMBERS).splitlines()[-1]


def families() -> dict[str, list[str]]:
    """Return the names of the networks by the module that defines them."""
    from ppcls.arch import list_models

    found: dict[str, list[str]] = {}
    for name in list_models():
        found.setdefault(BACKBONES[name].__module__, []).append(name)
    return dict(sorted(found.items()))


def _notes(rows: Sequence[Row]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            found.setdefault(row.note, []).append(row.name)
    return found


def store() -> None:
    """Measure all of our networks and write ``arch/sizes.json`` and ``docs/networks.md``."""
    from ppcls.arch import list_models

    sizes = {name: measure(name, usual_shape(name)) for name in tqdm(list_models(), unit="network")}
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(size)}" for name, size in sizes.items())
    (Path(__file__).parents[1] / "arch" / SIZES).write_text(f"{{\n{lines}\n}}\n", "utf-8")
    _sizes.cache_clear()
    Path("docs/networks.md").write_text(document(), "utf-8")


if __name__ == "__main__":
    store()
