"""The output of ``ppcls list`` and ``ppcls explain``: components, and what their docstrings say of them."""

from __future__ import annotations

import fnmatch
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ppcls import registry
from ppcls.config.binding import parameters_of
from ppcls.config.checks.components import EXTRA_DEFAULTS, EXTRA_DOCUMENTS, KINDS
from ppcls.config.docstrings import description, option_documents, plain_text, summary
from ppcls.config.loading import PACKAGED, read
from ppcls.config.nodes import RecipeTree
from ppcls.config.option_types import describe
from ppcls.contracts import is_ours, where_defined
from ppcls.errors import ConfigError, hint
from ppcls.registry import Registry
from ppcls.report.network_tables import stored_facts


@dataclass(frozen=True)
class Listed:
    """What ``ppcls list`` shows of one kind of component.

    Attributes:
        registry: knows the names.
        kind: key of :data:`ppcls.config.checks.components.KINDS`.
        sections: those of a recipe in which such components stand.
        page: the page of the documentation about them.
    """

    registry: Registry
    kind: str
    sections: tuple[str, ...]
    page: str


LISTED: Mapping[str, Listed] = {
    "losses": Listed(registry.LOSSES, "loss", ("Loss",), "docs/methods/README.md"),
    "networks": Listed(registry.BACKBONES, "network", ("Arch",), "docs/networks.md"),
    "transforms": Listed(registry.TRANSFORMS, "transform", ("DataLoader", "Infer"), "docs/transforms.md"),
    "batch-transforms": Listed(registry.BATCH_OPS, "batch_op", ("DataLoader",), "docs/transforms.md"),
    "datasets": Listed(registry.DATASETS, "dataset", ("DataLoader",), "docs/datasets.md"),
    "samplers": Listed(registry.SAMPLERS, "sampler", ("DataLoader",), "docs/samplers.md"),
    "metrics": Listed(registry.METRICS, "metric", ("Metric",), "docs/metrics.md"),
    "optimizers": Listed(registry.OPTIMIZERS, "optimizer", ("Optimizer",), "docs/optimizers.md"),
    "schedules": Listed(registry.SCHEDULES, "schedule", ("Optimizer",), "docs/schedules.md"),
    "postprocesses": Listed(registry.POSTPROCESSES, "postprocess", ("Infer",), "docs/postprocess.md"),
    "hooks": Listed(registry.HOOKS, "hook", ("Hooks",), "docs/hooks.md"),
}
# Pages of losses whose module has another name than the page.
_METHOD_PAGES = {
    **{"kldiv": "kd", "wkd_logit": "wkd", "feature_distance": "udml", "soft_ce": "kd"},
    **dict.fromkeys(("ce", "pair"), "README"),
}


@dataclass(frozen=True)
class Option:
    """An option of a component or a setting of a recipe.

    Attributes:
        name: as a recipe writes it.
        type: description of the values.
        required: whether it has no default.
        default: its default.
        meaning: what the documentation of the code says; empty if it says nothing.
    """

    name: str
    type: str
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True)
class Example:
    """A place in a packaged recipe.

    Attributes:
        recipe: its name, such as ``cifar/resnet56_resnet20_dkd.yaml``.
        path: config path of the component.
        node: what stands there.
    """

    recipe: str
    path: str
    node: Any


@dataclass(frozen=True)
class Explanation:
    """What is known about a component.

    Attributes:
        name: its registered name.
        kind: what it is, such as ``loss``.
        text: paragraphs: what it does, its equation and its paper.
        options: what can be set.
        note: how to use it, if that is not the usual way; may be empty.
        example: a place where a packaged recipe uses it, or None.
        recipes: names of the packaged recipes that use it.
        page: page of the documentation; empty for a plug-in.
        source: file and line of a plug-in; empty for our own.
    """

    name: str
    kind: str
    text: tuple[str, ...]
    options: tuple[Option, ...]
    note: str
    example: Example | None
    recipes: tuple[str, ...]
    page: str
    source: str

    def as_json(self) -> dict[str, Any]:
        """Return it as plain dicts and lists."""
        return asdict(self)


def list_components(title: str, pattern: str = "*") -> dict[str, str]:
    """Return the names of one kind that match `pattern`, sorted, each with one line that says what it is.

    Args:
        title: key of :data:`LISTED`.
        pattern: with wildcards.
    """
    listed = LISTED[title]
    listed.registry.load()
    facts = stored_facts() if title == "networks" else {}
    names = sorted(name for name in listed.registry.entries if fnmatch.fnmatchcase(name, pattern))
    return {name: facts.get(name) or plain_text(summary(listed.registry[name])) for name in names}


def is_component(name: str) -> bool:
    """Tell whether a component of any kind has this name."""
    return any(name in listed.registry for listed in LISTED.values())


def find_component(name: str, others: Iterable[str] = ()) -> list[Explanation]:
    """Return what is known about the components of this name; two kinds may have the same name.

    Args:
        name: a registered name.
        others: further names for the suggestions of the message.

    Raises:
        ConfigError: if there is none; the message has the nearest names.
    """
    found = [listed for listed in LISTED.values() if name in listed.registry]
    if not found:
        known = {other for listed in LISTED.values() for other in listed.registry.entries}
        raise ConfigError(f"no component or setting {name!r}.{hint(name, {*known, *others})}")
    return [_explained(name, listed) for listed in found]


def _explained(name: str, listed: Listed) -> Explanation:
    factory = listed.registry[name]
    ours = is_ours(factory)
    examples = list(_uses(name, listed.sections))
    recipes = tuple(dict.fromkeys(example.recipe for example in examples))
    text = description(factory)
    if listed.kind == "network":
        text += [*_paper(factory), *([f"{stored_facts()[name]}."] if name in stored_facts() else [])]
    return Explanation(
        name=name,
        kind=listed.registry.kind,
        text=tuple(plain_text(paragraph) for paragraph in dict.fromkeys(text)),
        options=tuple(_options(name, listed)),
        note=_note(name, listed),
        example=min(examples, key=lambda example: len(str(example.node)), default=None),
        recipes=recipes,
        page=_page(factory, listed) if ours else "",
        source="" if ours else where_defined(inspect.unwrap(factory)),
    )


def _note(name: str, listed: Listed) -> str:
    if listed.kind == "loss" and listed.registry.trait(name, "is_pair_loss"):
        return (
            f"In a recipe: DistillationPairLoss: {{base_loss_name: {name}, model_name_pairs: [[...]], ...}}."
        )
    if listed.kind == "network" and name in stored_facts():
        return f"`ppcls layers {name}` lists its layers, which return_patterns and stop_after can name."
    return ""


def _page(factory: Callable[..., Any], listed: Listed) -> str:
    if listed.kind != "loss":
        return listed.page
    module = factory.__module__.rpartition(".")[2]
    return f"docs/methods/{_METHOD_PAGES.get(module, module)}.md"


def _paper(factory: Callable[..., Any]) -> list[str]:
    """Return the paragraph that names the paper of a network, from the docstring of its module."""
    module = sys.modules.get(factory.__module__)
    paragraphs = inspect.cleandoc((module.__doc__ if module else None) or "").split("\n\n")
    return [paragraph for paragraph in paragraphs if "arXiv" in paragraph][:1]


def _options(name: str, listed: Listed) -> Iterator[Option]:
    factory = listed.registry[name]
    documents = {**listed.registry.trait(name, "shared_options"), **option_documents(factory)}
    for option, parameter in parameters_of(factory).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        required = parameter.default is parameter.empty
        wanted = (
            "any value" if parameter.annotation in (Any, parameter.empty) else describe(parameter.annotation)
        )
        default = None if required else parameter.default
        yield Option(option, wanted, required, default, plain_text(documents.get(option, "")))
    pair_loss = listed.kind == "loss" and listed.registry.trait(name, "is_pair_loss")
    for option, wanted in {} if pair_loss else KINDS[listed.kind].extra.items():
        yield Option(option, describe(wanted), False, EXTRA_DEFAULTS.get(option), EXTRA_DOCUMENTS[option])


@cache
def _packaged() -> dict[str, RecipeTree]:
    """Return the packaged recipes by name, with what they are based on."""
    named = {file.relative_to(PACKAGED).as_posix(): file for file in sorted(PACKAGED.glob("**/*.yaml"))}
    return {name: read(file) for name, file in named.items() if not name.startswith("_base_")}


def _uses(name: str, sections: tuple[str, ...]) -> Iterator[Example]:
    """Return the places of the packaged recipes at which the component stands."""
    for recipe, tree in _packaged().items():
        for section in sections:
            for path, node in _places(tree.get(section), section, name):
                yield Example(recipe, path, node)


def _places(value: Any, path: str, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if name in (value.get("name"), value.get("base_loss_name")) or name in value:
            yield path, value
        for key, inner in value.items():
            yield from _places(inner, f"{path}.{key}", name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, f"{path}.{index}", name)
