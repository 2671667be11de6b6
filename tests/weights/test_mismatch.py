"""``Global.pretrained_model`` with the wrong file: commands count what fitted, or refuse before they act."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save
from support import distilled, tiny_recipe
from torch_reference import CLASSES, rows, weights_for

from ppcls import create_model
from ppcls.cli import main
from ppcls.errors import WeightsError
from ppcls.weights import convert, write_params

pytestmark = pytest.mark.usefixtures("quick_weights")

COMMANDS = ("train", "eval", "infer", "export")
KL = {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}
Run = Callable[..., tuple[int, str]]


def tensors(network: str, prefix: str = "", classes: int = 4) -> dict[str, np.ndarray]:
    net = create_model(network, class_num=classes)
    return {prefix + name: value.numpy() for name, value in net.state_dict().items()}


def whole_run(student: str) -> dict[str, np.ndarray]:
    return tensors("resnet14", "Teacher.") | tensors(student, "Student.")


@pytest.fixture
def run(image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> Run:
    """Return a function that runs a command with a file; it returns the exit code and what was printed."""
    recipes = {
        "plain": tiny_recipe(image_folder, tmp_path / "output"),
        "distilled": distilled(tiny_recipe(image_folder, tmp_path / "output"), DistillationKLDivLoss=KL),
    }
    for name, recipe in recipes.items():
        recipe["Global"]["epochs"] = 1
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def run_command(command: str, recipe: str, weights: Path | str, *options: str) -> tuple[int, str]:
        capsys.readouterr()
        given = ["-o", f"Global.pretrained_model={weights}", *(x for o in options for x in ("-o", o))]
        if command == "export":
            given.append("--no-latency")
        code = main([command, "-c", str(tmp_path / f"{recipe}.yaml"), *given])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return code, captured.out + captured.err

    return run_command


REFUSED = [
    # recipe, what is in the file, what is said
    ("plain", lambda: tensors("PPLCNet_x0_25"), "1 of 47 tensors loaded", "the file of another network"),
    ("plain", lambda: tensors("resnet14"), "17 of 47 tensors loaded", "the file of another network"),
    ("plain", lambda: whole_run("resnet20"), "17 of 47 tensors loaded", "the file of another network"),
    ("plain", lambda: {"x": np.zeros(3)}, "none of its 1 tensors", "The file has x; the network wants"),
    ("distilled", lambda: whole_run("resnet20"), "20 of another shape", "Student.blocks.1.short.conv.weight"),
    ("distilled", lambda: {"x": np.zeros(3)}, "none of its 1 tensors", "It is the file of another network"),
]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("recipe", "content", "counted", "advice"), REFUSED)
def test_what_would_leave_the_network_untrained_is_refused(
    run: Run, tmp_path: Path, command: str, recipe: str, content: Callable, counted: str, advice: str
) -> None:
    write_params(tmp_path / "w.pdparams", content())
    code, printed = run(command, recipe, tmp_path / "w")
    assert code == 2
    assert counted in printed
    assert advice in printed
    assert not list((tmp_path / "output").rglob("*.pdparams"))
    assert not list((tmp_path / "output").rglob("inference.*"))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("recipe", ["plain", "distilled"])
def test_another_class_count_may_be_trained_but_not_used(
    run: Run, tmp_path: Path, command: str, recipe: str
) -> None:
    write_params(tmp_path / "w.pdparams", tensors("resnet8", classes=7))
    code, printed = run(command, recipe, tmp_path / "w")
    assert "45 of 47 tensors loaded" in printed
    if command == "train":
        assert code == 0
        assert "(file: 7 classes, network: 4)" in printed
    else:
        assert code == 2
        assert "Only the classifier differs: set class_num to what the file was trained with" in printed


def test_a_frozen_network_whose_classifier_stays_random_is_named(run: Run, tmp_path: Path) -> None:
    content = tensors("resnet14", "Teacher.", classes=7) | tensors("resnet8", "Student.", classes=7)
    write_params(tmp_path / "w.pdparams", content)
    code, printed = run("train", "distilled", tmp_path / "w")
    assert code == 0
    assert "!!! Teacher is not trained here" in printed
    assert "none that fit fc.weight, fc.bias" in printed
    assert "!!! Student" not in printed
    # weights of a network alone, and a classifier that a later file brings
    write_params(tmp_path / "t.pdparams", tensors("resnet14", classes=7))
    teacher = f"Arch.models.0.Teacher.pretrained={tmp_path / 't'}"
    assert "!!! Teacher" in run("train", "distilled", "null", teacher)[1]
    write_params(tmp_path / "w.pdparams", whole_run("resnet8"))
    code, printed = run("train", "distilled", tmp_path / "w", teacher)
    assert (code, "!!! Teacher is not trained here" in printed) == (0, False)
    # an evaluation of a network that gets its weights from the recipe
    write_params(tmp_path / "s.pdparams", tensors("resnet8", classes=7))
    code, printed = run("eval", "plain", "null", f"Arch.pretrained={tmp_path / 's'}")
    assert "!!! The network is not trained here" in printed


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("recipe", "content", "said"),
    [
        (
            "plain",
            lambda: whole_run("resnet8"),
            "taken from Student in the file, 77 tensors of other networks",
        ),
        ("distilled", lambda: tensors("resnet8"), "put into Student alone"),
    ],
)
def test_a_whole_run_and_its_student_stand_for_each_other(
    run: Run, tmp_path: Path, command: str, recipe: str, content: Callable, said: str
) -> None:
    write_params(tmp_path / "w.pdparams", content())
    code, printed = run(command, recipe, tmp_path / "w")
    assert code == 0
    assert "47 of 47 tensors loaded" in printed
    assert said in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_the_teachers_file_is_not_taken_for_the_student(run: Run, tmp_path: Path, command: str) -> None:
    write_params(tmp_path / "w.pdparams", tensors("resnet14"))
    code, printed = run(command, "distilled", tmp_path / "w")
    if command == "train":  # the student is to be trained anyway
        assert code == 0
        assert "put into Teacher alone" in printed
    else:
        assert code == 2
        assert "17 of 47 tensors loaded" in printed


def torch_file(folder: Path, params: dict[str, np.ndarray]) -> Path:
    path = folder / "torch.safetensors"
    path.write_bytes(save(params, metadata={"format": "pt"}))
    return path


_OTHER_GATE = "MobileNetV3_small_x0_35: its squeeze-and-excitation"


@pytest.mark.parametrize(
    ("command", "network", "reason"),
    [("eval", "VGG11", "VGG11: its convolutions have no biases")]
    + [(command, "MobileNetV3_small_x0_35", _OTHER_GATE) for command in COMMANDS]
    + [
        (command, "PPLCNet_x0_25", "no rules that turn PyTorch weights into those of PPLCNet_x0_25")
        for command in COMMANDS
    ],
)
def test_pytorch_files_of_other_functions_are_refused(
    run: Run, tmp_path: Path, command: str, network: str, reason: str
) -> None:
    file = torch_file(tmp_path, {"features.0.weight": np.zeros((8, 3, 3, 3), np.float32)})
    code, printed = run(command, "plain", file, f"Arch.name={network}")
    assert code == 2
    assert reason in printed


def test_a_pytorch_file_is_for_one_network_of_a_run(run: Run, tmp_path: Path) -> None:
    file = torch_file(tmp_path, {"fc.bias": np.zeros(4, np.float32)})
    for command in COMMANDS:
        code, printed = run(command, "distilled", file)
        assert code == 2
        assert "give the file as `pretrained` of the one that it is for" in printed


def test_a_pytorch_file_is_converted_for_every_command(run: Run, tmp_path: Path) -> None:
    row = next(row for row in rows() if row["theirs"] == "torchvision mobilenet_v2")
    file = torch_file(tmp_path, weights_for(row["shapes"]))
    arch = ("Arch.name=MobileNetV2", f"Arch.class_num={CLASSES}")
    for command in ("infer", "train"):
        code, printed = run(command, "plain", file, *arch, "Metric.Train=null")
        assert code == 0, printed
        assert "(0 missing, 0 unexpected, 0 of another shape)" in printed


def test_another_pytorch_network_is_named_with_what_does_not_fit() -> None:
    row = next(row for row in rows() if row["theirs"] == "torchvision resnet18")
    net = create_model("ResNet34", class_num=CLASSES)
    with pytest.raises(WeightsError, match="nothing in the file for"):
        convert(weights_for(row["shapes"]), net, "ResNet34", "file")
