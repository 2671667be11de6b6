"""A JSON schema of recipes, with which editors complete and check them: ``ppcls validate --schema``.

It is made of the sections of :mod:`ppcls.config.schema` and of the signatures and docstrings of all
registered components, those of installed plugins among them. An editor cannot know what a ``_base_`` brings
along, so nothing is required; nor what an interpolation stands for, so one may stand anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ppcls.config.binding import Parameters, parameters_of
from ppcls.config.checks.components import EXTRA_DOCUMENTS, INPUT_OPTIONS, KINDS, Kind
from ppcls.config.checks.paddleclas import KEYS, OPTIONS, Foreign
from ppcls.config.docstrings import option_documents, summary
from ppcls.config.json_types import (
    INTERPOLATED,
    NULL,
    Schema,
    bounded,
    list_of,
    or_interpolation,
    type_schema,
)
from ppcls.config.loading import BASE_KEY
from ppcls.config.schema import Recipe
from ppcls.config.section import default_of, fields_of
from ppcls.registry import Registry

# Settings of the run that PaddleClas has in Arch.
_RUN_SETTINGS = {"use_sync_bn": {"type": "boolean"}, "infer_add_softmax": {"type": "boolean"}}


def recipe_schema(*, plugins: bool = True) -> Schema:
    """Return the JSON schema (draft 7) of recipes.

    Args:
        plugins: include components that do not come with the package.
    """
    return _Writer(plugins).recipe()


def render(*, plugins: bool = True) -> str:
    """Return the JSON schema as text, with one line for each section and each kind of component."""
    schema = recipe_schema(plugins=plugins)
    lines = [f" {_written(key)}: {_lines(value)}" for key, value in schema.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _lines(value: Any) -> str:
    if not isinstance(value, dict):
        return _written(value)
    lines = [f"  {_written(key)}: {_written(inner)}" for key, inner in value.items()]
    return "{\n" + ",\n".join(lines) + "\n }"


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Writer:
    """Writes the schema of sections in place, and those of components as definitions that are referred to."""

    def __init__(self, plugins: bool) -> None:
        self._plugins = plugins
        self._definitions: dict[str, Schema] = {}
        self._titles: dict[str, str] = {}  # definitions of options by their content

    def recipe(self) -> Schema:
        """Return the whole schema."""
        properties = self._section(Recipe, "")["properties"]
        base = {
            "description": "Files to start from: maps merge, lists and single values are replaced.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        }
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "title": "Recipe of ppcls",
            "description": "Written by `ppcls validate --schema`; do not edit.",
            "type": "object",
            "properties": {BASE_KEY: base, **properties},
            "additionalProperties": False,
            "definitions": dict(sorted(self._definitions.items())),
        }

    # ------------------------------------------------------------------ sections

    def _section(self, section: type, path: str) -> Schema:
        properties: dict[str, Schema] = {}
        for name, (field, wanted) in fields_of(section).items():
            meta = field.metadata
            here = f"{path}.{name}".lstrip(".")
            if "section" in meta:
                value = or_interpolation(self._section(meta["section"], here))
            elif "kind" in meta:
                value = self._node(meta["kind"], meta["many"])
            else:
                value = bounded(type_schema(wanted), meta)
                default = default_of(field)
                value = {**value, "default": default} if default is not None else value
            properties[name] = {"description": meta["doc"], **value}
        if path == "Global":  # PaddleClas's way to save no epoch_N
            properties["save_interval"] = {"anyOf": [properties["save_interval"], {"const": -1}]}
        for key, foreign in KEYS.items():
            above, _, name = key.rpartition(".")
            if above == path:
                properties[name] = _foreign(foreign)
        return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}

    # ------------------------------------------------------------------ components

    def _node(self, kind: str, many: bool) -> Schema:
        """Return the schema of one named component, or of a list of them."""
        one = self._kind(kind)
        if many:
            return {"anyOf": [*list_of(one), NULL, INTERPOLATED]}
        several = list_of(one) if KINDS[kind].listed else []
        return {"anyOf": [one, *several, NULL, INTERPOLATED]}

    def _kind(self, kind: str) -> Schema:
        """Return a reference to the schema of the components of a kind."""
        if kind not in self._definitions:
            self._definitions[kind] = {}  # a kind may be nested in itself
            self._definitions[kind] = self._named(kind, KINDS[kind])
        return _ref(kind)

    def _named(self, kind: str, rules: Kind) -> Schema:
        """Return the schema of a node in both spellings: ``Name: {options}``, and with the key ``name``."""
        factories = self._factories(rules.registry)
        options = {name: self._options(kind, name, factory) for name, factory in factories.items()}
        documents = {name: summary(factory) for name, factory in factories.items()}
        by_options: dict[str, list[str]] = {}
        for name, ref in options.items():
            by_options.setdefault(ref["$ref"], []).append(name)
        flat = [
            {"if": _name_is(names), "then": {"$ref": ref}} for ref, names in by_options.items()
        ]  # fmt: skip
        names = {
            "type": "string",
            "enum": list(factories),
            "enumDescriptions": [documents[name] for name in factories],
        }
        with_name: Schema = {"properties": {"name": or_interpolation(names)}, "allOf": [{}, *flat]}
        by_name: Schema
        if rules.keyed:
            by_name = {
                "properties": {
                    name: {"description": documents[name], "anyOf": [ref, {"type": "null"}]}
                    for name, ref in options.items()
                },
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            }
        else:  # options without a name are laid over those of a base
            known = {option for ref in by_options for option in self._definitions[_key(ref)]["properties"]}
            by_name = {"propertyNames": {"enum": sorted({*known, *factories})}}
        has_name = {"required": ["name"], "properties": {"name": {"type": "string"}}}
        return {"type": "object", "if": has_name, "then": with_name, "else": by_name}

    def _factories(self, registry: Registry) -> dict[str, Callable[..., Any]]:
        """Return what is registered, by name."""
        named = {name: registry[name] for name in sorted(registry)}
        return {n: f for n, f in named.items() if self._plugins or f.__module__.startswith("ppcls.")}

    def _options(self, kind: str, name: str, factory: Callable[..., Any]) -> Schema:
        """Return a reference to the schema of the options of a component; equal ones are written once."""
        rules = KINDS[kind]
        parameters = parameters_of(factory)
        documents = {**rules.registry.trait(name, "shared_options"), **option_documents(factory)}
        properties: dict[str, Schema] = {"name": {}}
        for option, parameter in parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                continue
            if option in rules.nested and parameter.annotation is not str:
                inner, many = rules.nested[option]
                value = self._node(inner, many)
            elif option == "models" and kind == "network":
                value = self._models()
            else:
                value = type_schema(parameter.annotation)
            text = documents.get(option)
            properties[option] = {"description": text, **value} if text else value
        properties |= _extra_options(rules.extra)
        properties |= _foreign_options(kind, name, parameters)
        if kind == "network":  # wherever it stands; what may stand where is left to `ppcls validate`
            properties |= _extra_options(INPUT_OPTIONS)
            properties |= _RUN_SETTINGS
        chosen = rules.registry.trait(name, "nested_kind")
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and chosen is None
        if chosen is not None:
            properties |= {
                inner: self._options(chosen, inner, made)
                for inner, made in self._factories(KINDS[chosen].registry).items()
                if KINDS[chosen].registry.trait(inner, "nested_kind") is None
            }
        content = {"type": "object", "properties": properties, "additionalProperties": open_ended}
        written = json.dumps(content, sort_keys=True)
        title = self._titles.setdefault(written, f"{kind} {name}")
        self._definitions[title] = content
        return _ref(title)

    def _models(self) -> Schema:
        """Return the schema of ``models``: a list of maps from a name to a network."""
        entry = {"type": "object", "additionalProperties": self._kind("network"), "maxProperties": 1}
        return {"anyOf": [*list_of(entry), INTERPOLATED]}


def _ref(title: str) -> Schema:
    return {"$ref": f"#/definitions/{title.replace(' ', '%20')}"}


def _key(ref: str) -> str:
    return ref.removeprefix("#/definitions/").replace("%20", " ")


def _extra_options(options: Mapping[str, Any]) -> dict[str, Schema]:
    return {
        name: {"description": EXTRA_DOCUMENTS[name], **type_schema(wanted)}
        for name, wanted in options.items()
    }


def _name_is(names: list[str]) -> Schema:
    return {"properties": {"name": {"enum": names}}}


# ---------------------------------------------------------------------- PaddleClas


def _foreign_options(group: str, name: str, known: Parameters) -> dict[str, Schema]:
    """Return the options of PaddleClas that a component accepts without having them."""
    return {
        option: _foreign(foreign)
        for (kind, pattern, option), foreign in OPTIONS.items()
        if kind == group and option not in known and fnmatchcase(name, pattern)
    }


def _foreign(foreign: Foreign) -> Schema:
    """Return the schema of a key of PaddleClas that is not built here."""
    if foreign.notice is not None:
        return {"description": foreign.notice}
    return {"description": foreign.reason, "enum": [None, "None", *foreign.harmless]}
