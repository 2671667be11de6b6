"""Check the sections of a file against the dataclasses of :mod:`ppcls.config.schema`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from ppcls.config.checks.components import check_node, check_nodes
from ppcls.config.checks.paddleclas import judge_key, notice_key, why_refused
from ppcls.config.mistakes import Findings, join
from ppcls.config.option_types import Mismatch, convert
from ppcls.config.section import default_of, fields_of
from ppcls.errors import nearest


def check_section(section: type, value: Any, path: str, findings: Findings) -> dict[str, Any]:
    """Check a section and everything below it.

    Args:
        section: its dataclass.
        value: the value in the YAML; null means empty.
        path: its config path, empty at the top.
        findings: receives unknown keys, wrong types and values out of range.

    Returns:
        The section with every key, defaults filled in.
    """
    if value is None:
        value = {}
    fields = fields_of(section)
    if not isinstance(value, Mapping):
        expected = f"a section with keys such as {next(iter(fields))}"
        findings.error(path, value=value, expected=expected)
        value = {}
    for name in value:
        if name not in fields and not judge_key(join(path, name), value[name], findings):
            near = nearest(name, fields)
            advice = "" if near else f"Known: {', '.join(fields)}"
            kind = "unknown" if path else "unknown section"
            findings.error(join(path, name), kind, value=value[name], suggestions=near, advice=advice)
    checked = {}
    for name, (field, wanted) in fields.items():
        checked[name] = _check_key(field, wanted, value, join(path, name), findings)
    return checked


def _check_key(
    field: dataclasses.Field[Any], wanted: Any, section: Mapping[str, Any], path: str, findings: Findings
) -> Any:
    given = section.get(field.name)
    meta = field.metadata
    if "section" in meta:
        return (
            None
            if given is None and meta["optional"]
            else check_section(meta["section"], given, path, findings)
        )
    if "kind" in meta:
        if given is None:
            return None
        return (check_nodes if meta["many"] else check_node)(meta["kind"], given, path, findings)
    if field.name not in section:
        return default_of(field)
    try:
        converted = convert(given, wanted)
    except Mismatch as mismatch:
        why = why_refused(path)
        if why:
            findings.error(join(path, mismatch.path), f"{mismatch.text}{why}", value=given)
        else:
            findings.refuse(path, mismatch)
        return default_of(field)
    notice_key(path, converted, findings)
    _check_bounds(converted, meta, path, findings)
    return converted


def _check_bounds(value: Any, meta: Mapping[str, Any], path: str, findings: Findings) -> None:
    if isinstance(value, list):
        length = meta.get("length")
        if length is not None and len(value) != length:
            text = f"expected {length} numbers, got {len(value)}: {value}"
            findings.error(path, text, value=value, expected=f"{length} numbers")
        for index, element in enumerate(value):
            _check_bounds(element, {**meta, "length": None}, join(path, index), findings)
    elif isinstance(value, str) and meta["form"] and not re.fullmatch(meta["form"][0], value):
        text = f"expected {meta['form'][1]}, got {value!r}"
        findings.error(path, text, value=value, expected=meta["form"][1])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low = meta.get("minimum")
        high = meta.get("maximum")
        if low is not None and not value >= low:
            _refuse_number(f"{low} or more", value, path, findings)
        if high is not None and not value <= high:
            _refuse_number(f"{high} or less", value, path, findings)


def _refuse_number(expected: str, value: float, path: str, findings: Findings) -> None:
    findings.error(path, f"expected {expected}, got {value}", value=value, expected=expected)
