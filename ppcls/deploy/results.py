"""Results as JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppcls.errors import ConfigError, nearest
from ppcls.files import require_writable, write_atomic

Results = Iterable[dict[str, Any]]
FORMATS = (".json", ".jsonl", ".csv")
FEATURE_FORMATS = (".npz", ".jsonl")


def json_line(result: dict[str, Any], *, ascii_only: bool = False) -> str:
    """Return a result as one line of JSON, without the line break.

    Raises:
        ConfigError: if it contains what JSON does not know.
    """
    try:
        return json.dumps(result, ensure_ascii=ascii_only, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the post-process gives a result that JSON cannot hold: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r:.50}")


def require_result_file(path: str, formats: Sequence[str] = FORMATS) -> Path:
    """Return the path of a file for results, after a check that it can be written.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        formats: possible suffixes.

    Raises:
        ConfigError: for another suffix, or a place that cannot be written.
    """
    file = Path(path)
    if file.suffix.lower() not in formats:
        near = nearest(file.suffix.lower(), formats)
        remedy = f"; did you mean {file.stem}{near[0]}?" if near and file.suffix else ""
        known = f"{', '.join(formats[:-1])} or {formats[-1]}"
        raise ConfigError(f"--output {path}: the suffix decides the format, expected {known}{remedy}")
    if file.is_dir():
        raise ConfigError(f"--output {path}: it is a folder, expected a file")
    require_writable(file.absolute().parent, "--output")
    return file


def write_results(path: Path, results: Results, *, topk: int = 1) -> None:
    """Write results to a file as they come; it gets its name when it is complete.

    Until then, and if an error occurs, an older file of this name stays.

    Args:
        path: the file; its suffix decides the format, see :func:`require_result_file`.
        results: of a post-process, one dict for each image.
        topk: number of classes that a result may have, for the columns of a CSV file.

    Raises:
        ConfigError: if the format cannot hold the results.
        WeightsError: if the file cannot be written.
    """
    if path.suffix.lower() == ".npz":
        write_features(path, results)
        return
    formats: dict[str, Callable[[], Iterator[str]]] = {
        ".json": lambda: _json(results),
        ".jsonl": lambda: (json_line(result) + "\n" for result in results),
        ".csv": lambda: _csv(results, topk),
    }
    lines = formats[path.suffix.lower()]

    def fill(stream: BinaryIO) -> None:
        for text in lines():
            # Names of files may have bytes that are not UTF-8; \udc80 is their form in JSON, too.
            stream.write(text.encode("utf-8", "backslashreplace"))

    write_atomic(path, fill)


def _json(results: Results) -> Iterator[str]:
    before = "[\n"
    for result in results:
        yield before + json_line(result)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def _csv(results: Results, topk: int) -> Iterator[str]:
    """Yield a table with one row for each image; the first columns are those of the best class."""
    waiting: list[dict[str, Any]] = []
    source = iter(results)
    first: dict[str, Any] | None = None
    for result in source:  # unreadable images do not say how many classes there are
        waiting.append(result)
        if "error" not in result:
            first = result
            break
    probabilities = _probability_columns(first)
    yield _row([*_columns(topk), "error", *probabilities])
    for result in waiting:
        yield _row(_cells(result, topk, len(probabilities)))
    for result in source:
        yield _row(_cells(result, topk, len(probabilities)))


def _columns(topk: int) -> list[str]:
    names = ["file_name", "class_id", "label_name", "score"]
    for place in range(2, topk + 1):
        names += [f"class_id_{place}", f"label_name_{place}", f"score_{place}"]
    return names


def _probability_columns(result: dict[str, Any] | None) -> list[str]:
    count = 0 if result is None else len(result.get("probabilities", ()))
    return [f"probability_{number}" for number in range(count)]


def _cells(result: dict[str, Any], topk: int, probabilities: int) -> list[Any]:
    if not all(isinstance(result.get(key), list) for key in ("class_ids", "scores", "label_names")):
        raise ConfigError(
            f"--output: a CSV file holds class_ids, scores and label_names, and this post-process gives "
            f"{', '.join(map(str, result))}; write a .json or .jsonl file"
        )
    ids, labels, scores = result["class_ids"], result["label_names"], result["scores"]
    cells: list[Any] = [result.get("file_name", "")]
    for place in range(topk):
        known = place < len(ids)
        label = labels[place] if place < len(labels) else ""
        cells += [ids[place], label, scores[place]] if known else ["", "", ""]
    cells.append(result.get("error", ""))
    return cells + (result.get("probabilities") or [""] * probabilities)


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def write_features(path: Path, results: Results) -> None:
    """Write ``features`` [N, ...] float32 and ``file_names`` [N] of readable images to an ``.npz`` file.

    The names of the others are in ``unreadable`` [M], with the reasons in ``errors`` [M]. The features wait
    in a file without a name, so that memory holds one batch of them.

    Raises:
        ConfigError: if images have features of different shapes.
        WeightsError: if the file cannot be written.
    """

    def fill(stream: BinaryIO) -> None:
        texts: dict[str, list[str]] = {"file_names": [], "unreadable": [], "errors": []}
        shape: tuple[int, ...] | None = None
        with tempfile.TemporaryFile(dir=path.absolute().parent) as rows:
            for result in results:
                if "error" in result:
                    texts["unreadable"].append(result["file_name"])
                    texts["errors"].append(result["error"])
                    continue
                row = np.ascontiguousarray(result["features"], "<f4")
                if shape is not None and row.shape != shape:
                    raise ConfigError(
                        f"{result['file_name']}: features of shape {list(row.shape)}, those before have "
                        f"{list(shape)}, and one array holds one shape; bring images to one size first"
                    )
                rows.write(row.tobytes())
                texts["file_names"].append(result["file_name"])
                shape = row.shape
            rows.seek(0)
            count = len(texts["file_names"])
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, *(shape or (0,)))}
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                with archive.open("features.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_2_0(entry, header)
                    shutil.copyfileobj(rows, entry)
                for name, values in texts.items():
                    with archive.open(f"{name}.npy", "w") as entry:
                        np.lib.format.write_array(entry, np.array(values, np.str_), allow_pickle=False)

    write_atomic(path, fill)
