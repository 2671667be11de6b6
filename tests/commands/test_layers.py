"""`ppcls layers`: what a user reads before writing return_patterns."""

from __future__ import annotations

import re

import pytest

import ppcls
from ppcls.cli import main
from ppcls.engine.export import export_network


def run(capsys, *arguments):
    code = main(["layers", *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return code, captured.out, captured.err


def pair(recipe, teacher, student, **arch):
    recipe["Arch"] = {
        "name": "DistillationModel",
        "class_num": 4,
        "freeze_params_list": [True, False],
        "models": [{"Teacher": teacher}, {"Student": student}],
        **arch,
    }
    return recipe


def test_every_layer_of_a_network_is_a_line(capsys):
    code, out, _ = run(capsys, "resnet8", "--input", "3,20,24", "--class-num", "7")
    assert code == 0
    head, titles, *lines = out.splitlines()
    assert re.fullmatch(r"resnet8, images \[3, 20, 24\], 0\.08 M parameters, 0\.0\d\d G multiply-adds", head)
    assert titles.split() == ["layer", "type", "output", "stage"]
    rows = [re.split(r"\s{2,}", line) for line in lines]
    assert [row[0] for row in rows] == ppcls.create_model("resnet8").descriptors()
    assert ["blocks[1]", "BasicBlock", "[32, 10, 12]", "1"] in rows
    assert ["fc", "Linear", "[7]"] in rows


def test_stages_alone_in_columns(capsys):
    code, out, _ = run(capsys, "resnet8", "--input", "3,32,32", "--stages")
    assert code == 0
    assert out.splitlines()[1:] == [
        "layer      type        output        stage",
        "blocks[0]  BasicBlock  [16, 32, 32]  0",
        "blocks[1]  BasicBlock  [32, 16, 16]  1",
        "blocks[2]  BasicBlock  [64, 8, 8]    2",
    ]


def test_a_pair_of_a_recipe(recipe, write_recipe, capsys):
    """Wrong patterns are no obstacle: looking up right ones is what the command is for."""
    path = str(
        write_recipe(
            pair(
                recipe,
                {"name": "resnet8x4", "return_patterns": ["blocks[99]"], "stop_after": "nothing"},
                {"name": "resnet14", "pretrained": "/no/such/file"},
            )
        )
    )
    code, out, _ = run(capsys, "-c", path, "--stages")
    assert code == 0
    teacher, student, matches = out.split("\n\n")
    assert teacher.startswith("Teacher: resnet8x4 (frozen), images [3, 16, 16], ")
    assert student.startswith("Student: resnet14, images [3, 16, 16], ")
    assert matches.splitlines() == [
        "Student and Teacher, stages of the same shape:",
        "  none",
        "Student and Teacher, stages of the same height and width, other channels:",
        "  [16, 16, 16] and [64, 16, 16]",
        "    Student  blocks[1]",
        "    Teacher  blocks[0]",
        "  [32, 8, 8] and [128, 8, 8]",
        "    Student  blocks[3]",
        "    Teacher  blocks[1]",
        "  [64, 4, 4] and [256, 4, 4]",
        "    Student  blocks[5]",
        "    Teacher  blocks[2]",
    ]
    code, out, _ = run(capsys, "-c", path, "-o", "Arch.models.0.Teacher.name=resnet8")
    matches = out.split("\n\n")[2]
    same = matches[matches.index("  [64, 4, 4]") : matches.index("  [64, 1, 1]")]
    assert re.search(r"Student .*\bblocks\[4\].*\bblocks\[5\].*Teacher .*\bblocks\[2\]", same, re.DOTALL)
    assert "  [4]\n    Student  fc\n    Teacher  fc\n" in matches


def test_own_input_sizes_chains_and_mutual_learning(recipe, write_recipe, capsys):
    chain = {
        "name": "AttentionModel",
        "models": [
            {"Backbone": {"name": "resnet8", "class_num": 9}},
            {"Transform": {"name": "LinearTransformStudent"}},  # lacks the shapes that one looks up here
        ],
    }
    content = pair(recipe, {"name": "resnet8", "input_size": 8}, chain, freeze_params_list=[False, False])
    code, out, _ = run(capsys, "-c", str(write_recipe(content)))
    assert code == 0
    teacher, student, matches = out.split("\n\n")
    assert teacher.startswith("Teacher: resnet8, images [3, 8, 8]")
    assert re.search(r"^fc +Linear +\[4\]$", teacher, re.MULTILINE)
    assert student.startswith("Student: resnet8, images [3, 16, 16]")
    assert re.search(r"^fc +Linear +\[9\]$", student, re.MULTILINE)
    assert matches.startswith("Teacher and Student, layers of the same shape:")


def test_a_teacher_in_a_file_shows_its_outputs(recipe, write_recipe, tmp_path, capsys):
    export_network(ppcls.create_model("resnet8", class_num=4), tmp_path / "teacher", (3, 16, 16))
    teacher = {"name": "PaddleInferenceModel", "path": str(tmp_path / "teacher")}
    code, out, _ = run(capsys, "-c", str(write_recipe(pair(recipe, teacher, {"name": "resnet8"}))))
    assert code == 0
    shown, _, matches = out.split("\n\n")
    head, _, *rows = shown.splitlines()
    assert head == "Teacher: PaddleInferenceModel (frozen), images [3, 16, 16]"
    (row,) = rows
    assert row.split()[1:] == ["output", "[4]"]
    assert "Student  fc" in matches


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the name of a network, or a recipe"),
        (["resnet8", "-c", "x.yaml"], "give the name of a network, or a recipe"),
        (["resnet8", "-o", "Arch.name=x"], "-o changes a recipe"),
        (["resnet8", "--class-num", "0"], "class_num must be a whole number above 0, got 0"),
        (["resnet8", "--class-num", "9999999999"], "class_num must be at most 2147483647, got 9999999999"),
        (["resnet9"], "unknown network 'resnet9'. Did you mean: resnet8"),
        (["-c", "no.yaml"], "no.yaml"),
        (["resnet8", "--input", "1,32,32"], "takes images of 3 channels, not 1"),
    ],
)
def test_mistakes(capsys, arguments, says):
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert says in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["Arch=null"], "Arch: expected a network with its name"),
        (["Arch.models=[]"], "Arch.models: expected a list of networks"),
        (["Arch.models=[{A: {}}]"], "Arch.models.0.A"),
        (["Global.image_shape=[3, 32]"], "expected channels, height, width, got [3, 32]"),
        (["Arch.models.0.Teacher.nam=x"], "Arch.models.0.Teacher: resnet14 has no option 'nam'"),
        (["Arch.models.7.x=1"], "-o Arch.models.7.x=1: Arch.models has 2 entries"),
    ],
)
def test_mistakes_in_a_recipe(recipe, write_recipe, capsys, change, says):
    path = str(write_recipe(pair(recipe, {"name": "resnet14"}, {"name": "resnet8"})))
    code, _, err = run(capsys, "-c", path, *(word for text in change for word in ("-o", text)))
    assert code == 2
    assert says in err


def test_a_size_that_is_none(capsys):
    for text in ("3,32", "3,0,32", "a,b,c", "3,32,32,"):
        with pytest.raises(SystemExit) as stop:
            main(["layers", "resnet8", "--input", text])
        assert stop.value.code == 2
        assert "expected channels,height,width" in capsys.readouterr().err
