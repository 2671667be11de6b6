"""`ppcls models` and the facts it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from ppcls.arch import list_models
from ppcls.cli import main
from ppcls.report.network_tables import (
    describe_models,
    families,
    markdown_row,
    measure,
    network_names,
    usual_shape,
)
from ppcls.weights.sources import cached_path, official_url

PUBLISHED = json.loads(resources.files("ppcls.arch").joinpath("published.json").read_text("utf-8"))
DOCUMENT = Path(__file__).parents[2] / "docs" / "networks.md"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path))


def run(capsys, *arguments):
    code = main(["models", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_names_alone_are_one_a_line(capsys):
    code, out, _ = run(capsys, "resnet*x4")
    assert (code, out) == (0, "resnet32x4\nresnet8x4\n")
    code, out, err = run(capsys, "Nothing*")
    assert (code, out) == (2, "")
    assert "no network matches 'Nothing*'" in err


def test_details_are_a_table(capsys):
    code, out, _ = run(capsys, "MobileNetV3_small_x0_35", "--details")
    assert code == 0
    lines = out.splitlines()
    cells = re.split(r"\s{2,}", lines[1])
    assert cells[:3] == ["MobileNetV3_small_x0_35", "3,224,224", "1.67"]
    assert 0.012 < float(cells[3]) < 0.01456  # the model zoo's count has normalisation in it
    assert cells[4:] == ["53.03", "55.55", "plain, ssld", "-"]
    assert any(line.startswith("accuracies: PaddleClas, docs/") for line in lines)


def test_cached_weights_are_seen(capsys):
    for use_ssld, shown in ((True, ["ssld"]), (False, ["plain", "ssld"])):
        file = cached_path(official_url("MobileNetV3_small_x0_35", use_ssld=use_ssld))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        _, out, _ = run(capsys, "MobileNetV3_small_x0_35", "--json", "--input", "3,32,32")
        assert json.loads(out)[0]["cached"] == shown


def test_numbers_of_a_published_accuracy_are_for_its_own_images(capsys):
    _, out, _ = run(capsys, "resnet8x4", "--json")
    (row,) = json.loads(out)
    assert row["input"] == [3, 32, 32]
    assert row["note"] == "CIFAR-100, 100 classes"
    assert row["top1"] == 72.5
    assert row["ssld_top1"] is None
    assert row["parameters"] == pytest.approx(1.23e6, abs=5e3)
    _, out, _ = run(capsys, "resnet8x4", "--json", "--input", "3,64,64")
    (larger,) = json.loads(out)
    assert larger["multiply_adds"] == pytest.approx(4 * row["multiply_adds"], rel=1e-3)


def test_a_network_that_refuses_the_size_has_its_row(capsys):
    code, out, _ = run(capsys, "resnet8", "--details", "--input", "1,32,32")
    assert code == 0
    assert re.search(r"^resnet8 +1,32,32 +- +-", out, re.MULTILINE)
    assert "resnet8 takes images of 3 channels, not 1" in out


def test_every_fact_has_a_source_and_a_sensible_value():
    assert set(PUBLISHED["networks"]) <= set(list_models())
    for name, fact in PUBLISHED["networks"].items():
        values = [fact[key] for key in ("top1", "ssld_top1") if key in fact]
        assert all(30 < value < 90 for value in values), name
        assert not values or fact["source"] in PUBLISHED["sources"], name
        assert len(values) < 2 or values[0] < values[1], name
        assert set(fact) <= {"top1", "ssld_top1", "source", "note", "input", "class_num"}, name


def test_every_network_is_in_the_document():
    text = DOCUMENT.read_text("utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [module.rpartition(".")[2] for module in families()]
    for module, names in families().items():
        rows = re.findall(r"^\| (\w+) \| \d", sections[module.rpartition(".")[2]], re.MULTILINE)
        assert rows == names, f"{module}: run python -m ppcls.report.network_tables"
    assert sum(map(len, families().values())) == len(list_models())
    for row in describe_models(list_models()):
        assert markdown_row(row) in text.splitlines()


SIZES = json.loads(resources.files("ppcls.arch").joinpath("sizes.json").read_text("utf-8"))


def test_the_stored_names_are_those_of_all_networks():
    assert list(SIZES) == list_models() == network_names(), "run python -m ppcls.report.network_tables"


# Measuring takes a second per network, of the largest half a minute: the default run measures a few, and the
# slow one leaves out the largest, whose smaller siblings are of the same code.
@pytest.mark.parametrize(
    "name", ["PPLCNet_x0_25", "resnet20", "VGG11", "ResNet18_vd", "DeiT_tiny_patch16_224"]
)
def test_stored_sizes_are_what_networks_have(name):
    assert measure(name, usual_shape(name)) == SIZES[name], "run python -m ppcls.report.network_tables"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, size in SIZES.items() if size["parameters"] < 60e6])
def test_all_stored_sizes_are_what_networks_have(name):
    assert measure(name, usual_shape(name)) == SIZES[name], "run python -m ppcls.report.network_tables"


def test_a_network_without_stored_sizes_is_measured(capsys, monkeypatch):
    from ppcls.report import network_tables as networks

    stored = describe_models(["resnet8"])
    monkeypatch.setattr(networks, "_sizes", dict)
    assert describe_models(["resnet8"]) == stored


def test_names_and_details_need_no_paddle():
    code = (
        "import sys\n"
        "from ppcls.cli import main\n"
        "main(['models', '--details'])\n"
        "print([name for name in ('paddle', 'numpy', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) > len(SIZES)
    assert "paddle" not in lines[-1]
