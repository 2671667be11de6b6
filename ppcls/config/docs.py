"""Writes the reference of all settings: ``python -m ppcls.config.docs > docs/config.md``."""

from __future__ import annotations

import json
from typing import Any

from ppcls.config.option_types import describe
from ppcls.config.schema import REQUIRED, REQUIRED_WITH_EVAL, Recipe
from ppcls.config.section import default_of, fields_of

_HEAD = """# Settings of a recipe

Made by `python -m ppcls.config.docs > docs/config.md`; do not edit.

A recipe is a YAML file (UTF-8). `ppcls validate -c FILE` checks it without running it and lists all mistakes.

- `_base_: path` (or a list of paths) starts from other files, relative to this one or packaged recipes: maps
  merge, lists and single values are replaced. A map of numbers changes these entries of a list, the others
  stay: `models: {0: {Teacher: {pretrained: False}}}`.
- `-o Key.sub.0.sub=value` changes one setting; the value is read as YAML, a number counts entries of a list.
- `${Arch.class_num}` stands for the value of another setting that the recipe sets (not for a default),
  `${oc.env:NAME}` or `${oc.env:NAME,default}` for an environment variable, `${oc.decode:${oc.env:NAME}}` for
  one that is a number or a list.
- Text that begins with `~` is a path below a home folder, except for a `delimiter`.
- Keys are text or whole numbers. A file has at most 8 MB, 10,000 values and 40 levels, with everything that
  aliases and interpolations repeat counted each time; whole numbers have at most 64 bits.
- Arithmetic of numbers, such as `1.0/255.0`, may be written where a number is expected.
- With the line `# yaml-language-server: $schema=recipe.schema.json` at its top, editors with the YAML
  language server (VS Code with the extension YAML of Red Hat, Neovim, ...) complete keys, names and options,
  explain them and mark mistakes while you type. `ppcls validate --schema > recipe.schema.json` writes that
  file, with the components of installed plug-ins, and with `-c FILE` those of `Global.plugins` of a recipe;
  the one without plug-ins is [recipe.schema.json](recipe.schema.json). The path is relative to the recipe; an
  address works too. Editors do not see what `_base_` brings along, and check each value by itself: what must
  fit together is left to `ppcls validate -c FILE`.
- `ppcls explain Global.save_interval` shows one of these settings in the terminal, `ppcls list losses` the
  names of components of a kind, and `ppcls explain NAME` the options of one.
- In a list, write a component as `- Name: {option: value}` (`- Name: null` without options). Elsewhere write
  `{name: Name, option: value}`.
- Options of PaddleClas that ppcls does not have are accepted if their value changes nothing
  (`last_epoch: -1`). An option that has no effect gives a warning (`clip_grad`: use `clip_norm` or
  `clip_value`). Other tasks (several labels for one image, retrieval) are refused with the reason.
  `ppcls/config/checks/paddleclas.py` lists them.
"""


# Where the components of a kind are described; networks have two pages.
_PAGES = {
    "network": "[networks](networks.md), [options](network_options.md); `ppcls explain DistillationModel`",
    "loss": "[losses](methods/README.md)",
    "optimizer": "[optimizers](optimizers.md), [schedules](schedules.md)",
    "dataset": "[datasets](datasets.md)",
    "sampler": "[samplers](samplers.md)",
    "transform": "[transforms](transforms.md)",
    "metric": "[metrics](metrics.md)",
    "hook": "[hooks](hooks.md)",
    "postprocess": "[postprocessing](postprocess.md)",
}


def render() -> str:
    """Return the reference as Markdown."""
    lines = [_HEAD, "## What each command needs", ""]
    for mode, paths in REQUIRED.items():
        more = ", and while `Global.eval_during_train` is true "
        more += " and ".join(f"`{path}`" for path in REQUIRED_WITH_EVAL)
        lines.append(
            f"- `{mode}`: {', '.join(f'`{path}`' for path in paths)}{more if mode == 'train' else ''}"
        )
    lines += ["", "`infer` and `export` also need `Infer.transforms`, or else those of `DataLoader.Eval`."]
    for name, (field, _) in fields_of(Recipe).items():
        if "section" in field.metadata:
            lines += _section(field.metadata["section"], name)
        else:
            lines += ["", f"## {name}", "", field.metadata["doc"], "", _component(field.metadata)]
    return "\n".join(lines) + "\n"


def _section(section: type, path: str) -> list[str]:
    lines = ["", f"## {path}", "", (section.__doc__ or "").strip(), ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    below: list[str] = []
    for name, (field, wanted) in fields_of(section).items():
        meta = field.metadata
        if "section" in meta:
            lines.append(f"| `{name}` | section | | {meta['doc']} See `{path}.{name}`. |")
            if path != "DataLoader" or name == "Train":
                below += _section(meta["section"], f"{path}.{name}")
        elif "kind" in meta:
            lines.append(f"| `{name}` | {_component(meta)} | null | {meta['doc']} |")
        else:
            kind = meta["form"][1] if meta["form"] else describe(wanted)
            row = f"| `{name}` | {kind}{_bounds(meta)} | `{_yaml(default_of(field))}` | {meta['doc']} |"
            lines.append(row)
    return lines + below


def _component(meta: Any) -> str:
    kind = str(meta["kind"])
    title = f"list of {kind} components" if meta["many"] else f"{kind} component"
    return f"{title}: {_PAGES[kind]}"


def _bounds(meta: Any) -> str:
    low = meta["minimum"]
    high = meta["maximum"]
    if low is not None and high is not None:
        return f", {low} to {high}"
    return f", {low} or more" if low is not None else ""


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    print(render(), end="")
