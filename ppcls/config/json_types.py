"""JSON schemas of the types that options and keys are annotated with."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ppcls.config.option_types import ITERABLES, MAPS

Schema = dict[str, Any]

# Texts that may stand for any value, and for a number: ${Arch.class_num}, and arithmetic such as 1.0/255.0.
INTERPOLATION = r"\$\{"
ARITHMETIC = r"^[-+*/(). 0-9eE_]+$"
_ANY_NUMBER = r"^[0-9]+$"


def type_schema(wanted: Any) -> Schema:
    """Return the schema of the values that are accepted where a type is annotated."""
    origin = get_origin(wanted)
    args = get_args(wanted)
    if origin is Annotated:
        return type_schema(args[0])
    if origin in (Union, types.UnionType):
        return any_of([type_schema(arg) for arg in args])
    if origin is Literal:
        return or_interpolation({"enum": list(args)})
    base = origin or wanted
    if base in _SIMPLE:
        return _SIMPLE[base]
    if base in MAPS:
        return or_interpolation({"type": ["object"]})
    if base in ITERABLES:
        return any_of([*_array(base, args), INTERPOLATED])
    return {}


INTERPOLATED: Schema = {"type": ["string"], "pattern": INTERPOLATION}
_NUMBER_IN_TEXT = f"{INTERPOLATION}|{ARITHMETIC}"
NULL: Schema = {"type": ["null"]}
_SIMPLE: Mapping[Any, Schema] = {
    None: NULL,
    type(None): NULL,
    str: {"type": ["string"]},
    bool: {"type": ["boolean", "string"], "pattern": INTERPOLATION},
    int: {"type": ["integer", "string"], "pattern": _NUMBER_IN_TEXT},
    float: {"type": ["number", "string"], "pattern": _NUMBER_IN_TEXT},
}


def _array(base: Any, args: tuple[Any, ...]) -> list[Schema]:
    kinds = [arg for arg in args if arg is not Ellipsis]
    if base is tuple and args and Ellipsis not in args:
        items = [type_schema(kind) for kind in kinds]
        return [{"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}]
    return [{"type": "array", "items": type_schema(kinds[0]) if kinds else {}}, _CHANGES]


# A map of numbers changes these entries of a list that a base has.
_CHANGES: Schema = {"type": ["object"], "propertyNames": {"pattern": _ANY_NUMBER}, "minProperties": 1}


def list_of(item: Schema) -> list[Schema]:
    """Return what a list of nodes may be: one, or changes of a base's list, checked as its entries are."""
    return [{"type": "array", "items": item}, {**_CHANGES, "additionalProperties": item}]


def any_of(schemas: list[Schema]) -> Schema:
    """Return the schema of what one of `schemas` accepts, written as shortly as possible."""
    flat = [one for schema in schemas for one in (schema["anyOf"] if set(schema) == {"anyOf"} else [schema])]
    if {} in flat:
        return {}
    simple = [one for one in flat if one.keys() <= {"type", "pattern"}]
    others = [one for place, one in enumerate(flat) if one not in simple and one not in flat[:place]]
    merged = [_merged(simple)] if simple else []
    found = [*merged, *others]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _merged(simple: list[Schema]) -> Schema:
    """Return one schema for alternatives that have a type and perhaps a pattern of their text."""
    kinds = list(dict.fromkeys(kind for one in simple for kind in one["type"]))
    texts = [one for one in simple if "string" in one["type"]]
    if not texts or any("pattern" not in one for one in texts):
        return {"type": kinds}
    patterns = dict.fromkeys(part for one in texts for part in one["pattern"].split("|"))
    return {"type": kinds, "pattern": "|".join(patterns)}


def or_interpolation(schema: Schema) -> Schema:
    """Return the schema of what `schema` accepts, or an interpolation in its place."""
    return any_of([schema, INTERPOLATED])


def bounded(schema: Schema, meta: Mapping[str, Any]) -> Schema:
    """Return the schema with the bounds, the length and the form of a key."""
    if "anyOf" in schema:
        return {"anyOf": [bounded(alternative, meta) for alternative in schema["anyOf"]]}
    if "items" in schema:
        length = {} if meta["length"] is None else {"minItems": meta["length"], "maxItems": meta["length"]}
        return {**schema, "items": bounded(schema["items"], meta), **length}
    if meta["form"] and "string" in schema.get("type", ()):
        return {**schema, "pattern": f"^({meta['form'][0]})$|{INTERPOLATION}"}
    if {"integer", "number"} & set(schema.get("type", ())):
        bounds = {"minimum": meta["minimum"], "maximum": meta["maximum"]}
        return {**schema, **{key: bound for key, bound in bounds.items() if bound is not None}}
    return schema
