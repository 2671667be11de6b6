"""The findings of ``ppcls check-data``, as text and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, BinaryIO

from ppcls.data.audit import DataAudit, PartAudit
from ppcls.errors import ConfigError, WeightsError
from ppcls.weights import write_atomic

_SHOWN = 5
_REASONS = 20
# The parts in which messages of one kind differ: numbers and quotations from a file.
_VARYING = re.compile(r"\d+|'[^']*'|\"[^\"]*\"")


def render_audit(report: DataAudit) -> str:
    """Return the findings as text: the number of each kind and the first few; the JSON file has all."""
    lines = [line for part in report.parts for line in _render_part(part, report.class_names)]
    if report.leaked:
        lines.append(
            f"images of Eval that training has too, byte for byte: {len(report.leaked)}; the score of an "
            "evaluation will be too good"
        )
        lines += _first_lines(f"{one} = {other}" for one, other in report.leaked)
    if report.near:
        lines.append(f"images of Eval that are nearly the same as one of training: {len(report.near)}")
        lines += _first_lines(f"{one} ~ {other}" for one, other, _ in report.near)
    if report.mirrored is not None:
        lines.append(report.mirrored)
    stops = report.stops
    if not stops:
        return "\n".join([*lines, "nothing would stop a training"])
    return "\n".join([*lines, "this would stop a training:", *(f"  {text}" for text in stops)])


def _render_part(part: PartAudit, names: list[str] | None) -> list[str]:
    if not part.images:
        return [f"{part.part}: {part.source}: could not be opened"]
    speed = part.images / max(part.seconds, 1e-9)
    lines = [f"{part.part}: {part.source}: {part.images} images, {speed:.0f} images/s"]
    lines += _render_classes(part.class_images, names)
    for title, files in (("cannot be read", part.unreadable), ("a transform fails", part.failed)):
        if files:
            lines.append(f"  {title}: {len(files)}")
            lines += _by_reason(files)
    for kind, details in sorted(part.odd.items()):
        if len(details) == part.images:
            lines.append(f"  {kind}: all of them")
            continue
        lines.append(f"  {kind}: {len(details)}")
        lines += _first_lines(f"{path}: {detail}" for path, detail in details.items())
    if part.repeated:
        lines.append(f"  the same file again: {len(part.repeated)}")
        lines += _first_lines(f"{one} = {other}" for one, other in part.repeated)
    if part.contradictions:
        lines.append(f"  the same file with another label: {len(part.contradictions)}")
        lines += _first_lines(f"{one} = {other}" for one, other in part.contradictions)
    return lines


def _by_reason(files: Mapping[str, str]) -> list[str]:
    """Return the first few files per reason; reasons that differ only in numbers or quotations are one."""
    groups: dict[str, list[str]] = {}
    for path, reason in files.items():
        groups.setdefault(_VARYING.sub("", reason.replace(path, "")), []).append(path)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = []
    for paths in ordered[:_REASONS]:
        if len(paths) <= _SHOWN:
            lines += [f"    {path}: {files[path]}" for path in paths]
        else:
            lines.append(f"    {len(paths)} files, such as {paths[0]}: {files[paths[0]]}")
            lines += [f"      {path}" for path in paths[1:_SHOWN]]
            lines.append(f"      and {len(paths) - _SHOWN} more")
    rest = ordered[_REASONS:]
    if rest:
        lines.append(f"    and {sum(map(len, rest))} files for {len(rest)} other reasons")
    return lines


def _render_classes(counts: list[int], names: list[str] | None) -> list[str]:
    def title(label: int) -> str:
        return str(label) if names is None or label >= len(names) else f"{label} {names[label]}"

    present = [(count, label) for label, count in enumerate(counts) if count]
    if not present:
        return []
    fewest, rare = min(present)
    most, common = max(present)
    lines = [
        f"  {len(present)} of {len(counts)} classes; from {fewest} (class {title(rare)}) to {most} images "
        f"(class {title(common)})"
    ]
    empty = [title(label) for label, count in enumerate(counts) if not count]
    if empty:
        more = f" and {len(empty) - 20} more" if len(empty) > 20 else ""
        lines.append(f"  classes without images: {', '.join(empty[:20])}{more}")
    return lines


def _first_lines(texts: Iterable[str]) -> list[str]:
    every = list(texts)
    lines = [f"    {text}" for text in every[:_SHOWN]]
    return lines + [f"    and {len(every) - _SHOWN} more"] if len(every) > _SHOWN else lines


def write_json(report: DataAudit, path: Path) -> None:
    """Write all findings into a JSON file.

    Raises:
        ConfigError: if it cannot be written.
    """
    content: dict[str, Any] = {**asdict(replace(report, datasets={})), "stops": report.stops}
    del content["datasets"]
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"

    def write(stream: BinaryIO) -> None:
        stream.write(text.encode("utf-8", "backslashreplace"))  # names may have other bytes

    try:
        write_atomic(path, write)
    except WeightsError as error:
        raise ConfigError(f"--report: {error}") from None
