"""Check that the class names of ``Infer.PostProcess`` fit the network."""

from __future__ import annotations

from pathlib import Path

from ppcls.class_names import find_class_names, is_packaged, misfit, read_class_names
from ppcls.config.checks.networks import Networks
from ppcls.config.mistakes import Findings
from ppcls.config.schema import Recipe
from ppcls.errors import DataError

_NODE = "Infer.PostProcess"


def check_class_names(recipe: Recipe, networks: Networks, findings: Findings) -> None:
    """Report a user's file that does not name each class once; warn about a packaged one.

    A missing file is not a mistake yet, because data may come later; it is reported when it is read.
    """
    node = recipe.Infer.PostProcess
    main = networks.members.get(networks.main)
    class_num = None if main is None else main.class_num
    if not isinstance(node, dict) or findings.mistakes_below(_NODE):
        return
    listed = node.get("label_list")
    path = node.get("class_id_map_file")
    if listed is not None:
        if class_num is not None and len(listed) != class_num:
            text = f"{len(listed)} names, but the network has {class_num} classes"
            findings.error(f"{_NODE}.label_list", text)
    elif isinstance(path, str):
        _check_file(path, node.get("delimiter"), class_num, findings)


def _check_file(path: str, delimiter: str | None, class_num: int | None, findings: Findings) -> None:
    where = f"{_NODE}.class_id_map_file"
    try:
        file: Path = find_class_names(path)
    except DataError:
        return
    try:
        names = read_class_names(path, delimiter)
    except DataError as error:
        findings.refuse(where, error)
        return
    problem = misfit(names, class_num)
    if problem is None:
        return
    if is_packaged(file):
        findings.warn(
            where,
            f"the names of {path} are left out, because it has {len(names)} and the network has {class_num} "
            f"classes; set it to a file of your own with a line 'id name' for each class, 0 to "
            f"{(class_num or 1) - 1}, or to null",
        )
    else:
        findings.error(where, f"{path}: {problem}")
