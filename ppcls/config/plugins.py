"""Load the plug-ins of ``Global.plugins`` before any component is looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ppcls.config.mistakes import Findings, join
from ppcls.errors import ConfigError
from ppcls.plugins import load_plugin, placed

PLACE = "Global.plugins"


def with_plugins(tree: dict[str, Any], file: str | Path, findings: Findings) -> dict[str, Any]:
    """Load the plug-ins of a recipe; return the recipe with their absolute paths.

    Args:
        tree: the recipe, interpolations resolved.
        file: its file, or its name in messages.
        findings: receives a plug-in that registers nothing.

    Raises:
        ConfigError: listing those that cannot be loaded. Nothing else of the recipe is checked then, because
            the names that they would register are not known.
    """
    settings = tree.get("Global")
    entries = settings.get("plugins") if isinstance(settings, dict) else None
    if not isinstance(settings, dict) or not isinstance(entries, list):
        return tree  # a mistake is reported where the sections are checked
    folders = [Path(file).absolute().parent, Path.cwd()]
    for folder in folders:
        entries = placed(entries, folder)
    broken = Findings()
    for index, entry in enumerate(entries):
        if not isinstance(entry, str):
            continue
        try:
            odd = load_plugin(entry, folders)
        except ConfigError as error:
            broken.error(join(PLACE, index), str(error))
        else:
            if odd is not None:
                findings.warn(join(PLACE, index), odd)
    broken.finish(str(file))
    return {**tree, "Global": {**settings, "plugins": entries}}
