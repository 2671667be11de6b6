"""``ppcls list`` and ``ppcls explain``: every component and setting is there, with what it means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppcls import registry
from ppcls.cli import main
from ppcls.commands.list_components import KINDS
from ppcls.contracts import is_ours
from ppcls.report.components import LISTED, _options, _page, list_components
from ppcls.report.explanations import explain, render
from ppcls.report.settings import setting_names

ROOT = Path(__file__).parents[2]


def ours(title: str) -> list[str]:
    known = LISTED[title].registry
    return [name for name in sorted(known) if is_ours(known[name])]


def test_every_kind_of_component_is_listed():
    assert tuple(LISTED) == KINDS
    assert {id(one) for one in registry.registries()} == {id(one.registry) for one in LISTED.values()}


@pytest.mark.parametrize("title", [title for title in LISTED if title != "hooks"])
def test_each_component_has_a_summary_and_each_option_a_meaning(title):
    listed = LISTED[title]
    names = ours(title)
    assert names
    lines = list_components(title)
    assert [name for name in names if len(lines[name].split()) < 3] == []
    missing = [f"{name}.{one.name}" for name in names for one in _options(name, listed) if not one.meaning]
    assert missing == []


@pytest.mark.parametrize("title", [title for title in LISTED if title != "hooks"])
def test_each_component_stands_on_its_page_of_the_documentation(title):
    listed = LISTED[title]
    pages: dict[str, str] = {}
    missing = []
    for name in ours(title):
        page = _page(listed.registry[name], listed)
        text = pages.setdefault(page, (ROOT / page).read_text("utf-8"))
        if title != "networks" and name not in text:
            missing.append((name, page))
    assert missing == []


def test_a_loss_is_explained_with_its_paper_its_equation_its_options_and_a_recipe(capsys):
    assert main(["explain", "DistillationDKDLoss"]) == 0
    said = capsys.readouterr().out
    for words in (
        "Decoupled knowledge distillation",
        "T^2 * (alpha * TCKD + beta * NCKD)",
        "alpha: a number (default 1.0)",
        "model_name_pairs: a list (required)",
        "weight of the target part.",
        "weight: a number or a map (default 1.0)",
        "cifar/resnet56_resnet20_dkd.yaml",
        "Documentation: docs/methods/dkd.md",
    ):
        assert words in said
    assert "`" not in said


def test_what_a_summary_refers_to_is_part_of_the_explanation():
    (found,) = explain("ATLoss")
    assert any("arXiv 1612.03928" in paragraph for paragraph in found.text)
    assert "base_loss_name: ATLoss" in found.note
    (network,) = explain("ResNet18")
    assert any("arXiv 1512.03385" in paragraph for paragraph in network.text)


def test_an_example_of_a_recipe_is_what_stands_there():
    (found,) = explain("MGDLoss")
    assert found.example is not None
    assert found.example.node["base_loss_name"] == "MGDLoss"
    assert found.example.recipe in found.recipes
    assert "base_loss_name: MGDLoss\n" in render(found)
    assert "  - [Student, Teacher]\n" in render(found)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "DistillationDKDLos",
            "no component or setting 'DistillationDKDLos'. Did you mean: DistillationDKDLoss",
        ),
        ("DistillationDKDLoss.bet", "DistillationDKDLoss has no option 'bet'. Did you mean: beta?"),
        ("Global.save_intervl", "Global has no key 'save_intervl'. Did you mean: save_interval"),
        ("Global.qqq", "Global has no key 'qqq'. `ppcls explain Global` shows its keys"),
        ("Global.epochs.x", "Global.epochs is a single setting; there is no 'x' in it"),
        (
            "Loss.Train.0.DKD",
            "there is no component in '0.DKD', which stands in Loss.Train. `ppcls list losses`",
        ),
        ("Arch.models", "`ppcls list networks` shows what may stand here"),
        ("Optimizer.lr.learning_rate", "`ppcls list optimizers`"),
        ("save_interval", "Did you mean: Global.save_interval"),
        (".", "no component or setting '.'"),
    ],
)
def test_a_name_that_does_not_exist(name, says, capsys):
    assert main(["explain", name]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Global.save_interval", "a whole number, 1 or more (default 1)"),
        ("EMA", "decay: a number, 0 to 1 (default 0.9999)"),
        ("Loss.Train", "`ppcls list losses` shows what may stand here"),
        ("Loss.Train.0.DistillationDKDLoss.beta", "beta: a number (default 1.0)"),
        ("DataLoader.Train.dataset.transform_ops.1.RandCropImage.size", "a number for a square"),
        ("Arch.models.0.Teacher.ResNet18.max_pool", "whether the stem ends with a pooling."),
        ("ResNet18", "11.69 M parameters, 1.827 G multiply-adds, published top-1 70.98 %."),
        ("DistillationDKDLoss.beta", "weight of the part among the other classes."),
        ("Cosine", "warmup_epoch: a number (default 0)"),
    ],
)
def test_settings_and_single_options(name, words, capsys):
    assert main(["explain", name]) == 0
    assert words in " ".join(capsys.readouterr().out.split())


def test_every_setting_can_be_explained():
    names = setting_names()
    assert "DataLoader.Train.loader.num_workers" in names
    for name in names:
        assert explain(name)[0].text


def test_lists_as_text_and_as_json(capsys):
    assert main(["list", "networks", "ResNet18*"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        "ResNet18     11.69 M parameters, 1.827 G multiply-adds, published top-1 70.98 %"
    )
    assert main(["list", "schedules", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name", "summary"} == set(found[0])
    assert "Cosine" in [one["name"] for one in found]
    assert main(["list", "hooks", "No*"]) == 2
    assert "none of the hooks matches 'No*'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["list", "loses"])
    assert "Did you mean: losses?" in capsys.readouterr().err
    assert main(["explain", "Topk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "post-process"


def test_what_a_plug_in_registers_is_listed_and_explained(tmp_path, capsys):
    file = tmp_path / "mine_of_list.py"
    file.write_text(
        "from ppcls.metric import Metric\n"
        "from ppcls.registry import METRICS\n\n"
        "@METRICS.register('ShareOfZeros')\n"
        "class ShareOfZeros(Metric):\n"
        '    """The share of images that are taken for class 0.\n\n'
        "    Args:\n        margin: how much more probable it must be.\n"
        '    """\n\n'
        "    def __init__(self, margin: float = 0.5, how=max, of=(1, 2)):\n        self.margin = margin\n\n"
        "    def __call__(self, outputs, label):\n        return {'zeros': 0.0}\n",
        "utf-8",
    )
    assert main(["list", "metrics", "--plugin", str(file)]) == 0
    assert "The share of images that are taken for class 0." in capsys.readouterr().out
    assert main(["explain", "ShareOfZeros", "--plugin", str(file)]) == 0
    said = capsys.readouterr().out
    assert "margin: a number (default 0.5)\n      how much more probable it must be." in said
    assert 'how: any value (default "<built-in function max>")' in said
    assert "of: any value (default [1, 2])" in said
    assert f"Defined in {file}:4" in said
    assert "Documentation" not in said


def test_a_list_of_what_does_not_need_paddle_does_not_import_it():
    code = (
        "import sys; from ppcls.cli import main; main(['list', 'datasets']); print('paddle' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("False")
