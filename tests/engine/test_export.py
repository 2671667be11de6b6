"""Exported files: equal to the network, holding nothing else, and never half-written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn
from support import slow_unless

import ppcls
from ppcls.config import parse_yaml
from ppcls.engine import export, onnx_export
from ppcls.engine.build import run_files
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, DataError, TrainingError
from ppcls.runtime import Program, check_params, export_files, find_program, read_description

SHAPE = (3, 12, 12)
TRIO = ["inference.pdiparams", "inference.pdiparams.info", "inference.pdmodel"]


class Net(nn.Layer):
    """Enough of a network to have running statistics, and more than ten layers, whose names sort oddly."""

    def __init__(self, taps: bool = False) -> None:
        super().__init__()
        self.convs = nn.LayerList([nn.Conv2D(3 if i == 0 else 4, 4, 3, padding=1) for i in range(12)])
        self.norm = nn.BatchNorm2D(4)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 7)
        self.taps = taps
        self.train()

    def forward(self, x: paddle.Tensor) -> paddle.Tensor | dict[str, paddle.Tensor]:
        for conv in self.convs:
            x = nn.functional.relu(conv(x)) + x[:, :1] * 0.5
        x = self.norm(x)
        logits = self.fc(self.drop(x.mean([2, 3])))
        return {"logits": logits, "norm": x} if self.taps else logits


@pytest.fixture
def net() -> Net:
    paddle.seed(3)
    made = Net()
    made.norm._mean.set_value(paddle.to_tensor([0.1, -0.2, 0.3, 0.4]))
    return made


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(5).standard_normal((3, *SHAPE)).astype(np.float32)


def logits_of(net: nn.Layer, batch: np.ndarray) -> np.ndarray:
    net.eval()
    out = net(paddle.to_tensor(batch))
    return (out["logits"] if isinstance(out, dict) else out).numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("formats", "files"),
    [
        pytest.param("paddle", ["inference.json", "inference.pdiparams"], marks=pytest.mark.slow),
        pytest.param("legacy", TRIO, marks=pytest.mark.slow),
        ("both", ["inference.json", *TRIO]),
    ],
)
def test_files_repeat_the_network(
    net: Net, batch: np.ndarray, tmp_path: Path, formats: str, files: list[str]
) -> None:
    report = export_network(net, tmp_path / "out", SHAPE, formats=formats, sample=batch)
    assert sorted(os.listdir(tmp_path / "out")) == sorted([*files, "inference.yml"]) == sorted(report.files)
    assert os.listdir(tmp_path) == ["out"]
    programs = [f for f in files if f.endswith((".json", ".pdmodel"))]
    assert len(report.differences) == 2 * len(programs)
    assert max(report.differences.values()) < 1e-6
    want = softmax(logits_of(net, batch))
    for program in programs:
        got = Program(tmp_path / "out" / program, mkldnn=False)(batch)
        np.testing.assert_allclose(got, want, atol=1e-6)


def test_logits_without_softmax(net: Net, batch: np.ndarray, tmp_path: Path) -> None:
    export_network(net, tmp_path / "out", SHAPE, softmax=False)
    got = Program(tmp_path / "out" / "inference.json")(batch[:1])
    np.testing.assert_allclose(got, logits_of(net, batch[:1]), atol=1e-5)
    assert yaml.safe_load((tmp_path / "out" / "inference.yml").read_text())["Global"]["softmax"] is False


def test_modes_come_back_and_training_goes_on(net: Net, tmp_path: Path) -> None:
    net.norm.eval()  # a layer that is frozen while the rest trains
    statistics = net.norm._mean.numpy().copy()
    export_network(net, tmp_path / "out", SHAPE, formats="both")
    assert (net.training, net.norm.training, net.drop.training) == (True, False, True)
    np.testing.assert_array_equal(net.norm._mean.numpy(), statistics)
    assert paddle.in_dynamic_mode()
    assert net.fc.weight.dtype == paddle.float32
    net(paddle.ones([2, *SHAPE])).sum().backward()
    assert net.fc.weight.grad is not None


def test_features_and_teachers_stay_out(batch: np.ndarray, tmp_path: Path) -> None:
    net = Net(taps=True)
    export_network(net, tmp_path / "out", SHAPE, sample=batch)
    want = softmax(logits_of(net, batch))
    np.testing.assert_allclose(Program(tmp_path / "out" / "inference.json")(batch), want, atol=1e-5)
    held = sum(int(np.prod(v.shape)) for v in net.state_dict().values()) * 4
    size = (tmp_path / "out" / "inference.pdiparams").stat().st_size
    assert held <= size <= held + 100 * len(net.state_dict())

    class Pair(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.Teacher, self.Student = Net(), Net()

        def forward(self, x: paddle.Tensor) -> dict[str, paddle.Tensor]:
            return {"Teacher": self.Teacher(x), "Student": self.Student(x)}

    with pytest.raises(ConfigError, match=r"Teacher, Student.*infer_model_name"):
        export_network(Pair(), tmp_path / "pair", SHAPE)


class Broken(nn.Layer):
    """Differs between memory and file: the factor is fixed when the program is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.calls = 0

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        self.calls += 1
        return self.fc(x.mean([2, 3])) * float(self.calls)


def test_a_difference_is_an_error_and_the_old_export_stays(net: Net, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_network(net, out, SHAPE)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(TrainingError, match=r"inference\.json differs from the network .* at every call"):
        export_network(Broken(), out, SHAPE, softmax=False)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert os.listdir(tmp_path) == ["out"]


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_killed_while_moving_leaves_the_old_export_or_the_new_one(
    batch: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename of the second export, and every removal of an old file, is the last thing that happens.

    Its program is made once; what is moved are copies.
    """
    nets = []
    for seed in (1, 2):
        paddle.seed(seed)
        nets.append(Net())
    want = [softmax(logits_of(one, batch)) for one in nets]
    export_network(nets[0], tmp_path / "old", SHAPE, formats="both")

    def answer(folder: Path) -> int:
        files = find_program(folder)
        check_params(files.params, read_description(files.description)["Global"])
        got = Program(files.program, files.params)(batch)
        (found,) = [place for place, one in enumerate(want) if np.abs(got - one).max() < 1e-5]
        return found

    export_network(nets[1], tmp_path / "new", SHAPE)
    monkeypatch.setattr(
        export,
        "_write_program",
        lambda net, image_shape, name, folder: [
            shutil.copy(tmp_path / "new" / file, folder) for file in export._FILES[name]
        ],
    )
    seen = []
    for stop in range(12):
        folder = tmp_path / str(stop)
        shutil.copytree(tmp_path / "old", folder)
        count = 0

        def last(function, stop: int = stop):  # noqa: ANN001, ANN202
            def call(first: object, *rest: object, **options: object) -> object:
                nonlocal count
                if ".new" in f"{first}{rest}" or Path(str(first)).parent.name == str(stop):
                    count += 1
                if count > stop:
                    raise Killed
                return function(first, *rest, **options)

            return call

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "replace", last(os.replace))
            patch.setattr(Path, "unlink", last(Path.unlink))
            export_network(nets[1], folder, SHAPE, formats="paddle")
        seen.append(answer(folder))
        export_files(folder).finish()
        assert answer(folder) == seen[-1]
        assert len(os.listdir(folder)) == (3 if seen[-1] else 5)
        if count <= stop:
            break
    assert count <= stop, "the export ended by itself"
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}


def test_an_unstable_network_is_named_as_the_cause(tmp_path: Path) -> None:
    class Loud(nn.Layer):
        """Turns a rounding of its input into another output."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            factor = 1.0 if paddle.in_dynamic_mode() else 1.01
            return paddle.sin(self.fc(x.mean([2, 3])) * 1e7 * factor)

    with pytest.raises(TrainingError, match=r"written\. The network .* its weights are untrained"):
        export_network(Loud(), tmp_path / "out", SHAPE, softmax=False)


def test_random_images_do_not_saturate_the_check(tmp_path: Path) -> None:
    class Loud(nn.Layer):
        """Probabilities of plain noise are 0 and 1, and hide that the file lacks a factor of 1.01."""

        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(int(np.prod(SHAPE)), 3, weight_attr=nn.initializer.Normal(0, 30))

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return self.fc(x.flatten(1)) * (1.0 if paddle.in_dynamic_mode() else 1.01)

    with pytest.raises(TrainingError, match="differs"):
        export_network(Loud(), tmp_path / "out", SHAPE)


def test_nan_is_a_difference(net: Net, tmp_path: Path) -> None:
    net.fc.bias.set_value(paddle.full([7], float("nan")))
    with pytest.raises(TrainingError, match="nan"):
        export_network(net, tmp_path / "out", SHAPE)
    assert not os.listdir(tmp_path)


def test_files_of_another_format_do_not_survive(net: Net, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_network(net, out, SHAPE, formats="both")
    (out / "notes.txt").write_text("mine")
    export_network(Net(), out, SHAPE)
    assert sorted(os.listdir(out)) == ["inference.json", "inference.pdiparams", "inference.yml", "notes.txt"]


def test_a_function_that_legacy_cannot_write(tmp_path: Path) -> None:
    class Modern(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.exp(self.fc(x.mean([2, 3])))

    export_network(Modern(), tmp_path / "out", SHAPE)
    with pytest.raises(ConfigError, match=r"export_format: .*legacy.*exp\(\)"):
        export_network(Modern(), tmp_path / "old", SHAPE, formats="legacy")
    assert paddle.in_dynamic_mode()
    export_network(Modern(), tmp_path / "new", SHAPE)
    with pytest.raises(ConfigError, match="paddle, legacy or both"):
        export_network(Modern(), tmp_path / "new", SHAPE, formats="onnx")


def test_formats_that_order_parameters_differently_are_refused(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = paddle.jit.save

    def reordered(layer: object, path: str) -> None:
        save(layer, path)
        if "legacy" in path:
            Path(f"{path}.pdiparams").write_bytes(b"other order")

    monkeypatch.setattr(export.paddle.jit, "save", reordered)
    with pytest.raises(ConfigError, match="order their parameters differently"):
        export_network(net, tmp_path / "out", SHAPE, formats="both")
    assert not os.listdir(tmp_path)


def test_the_description_and_its_class_names(net: Net, tmp_path: Path) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("0 a\n1 b\n")
    description = {
        "Global": {"model_name": "Net", "class_num": 7},
        "PreProcess": {"transform_ops": [{"DecodeImage": {"to_rgb": True}}]},
        "PostProcess": {"name": "Topk", "topk": 2, "class_id_map_file": str(labels)},
    }
    export_network(net, tmp_path / "out", SHAPE, inference_yml=description)
    got = yaml.safe_load((tmp_path / "out" / "inference.yml").read_text())
    params = (tmp_path / "out" / "inference.pdiparams").read_bytes()
    assert got["Global"] == {
        "model_name": "Net",
        "class_num": 7,
        "image_shape": list(SHAPE),
        "softmax": True,
        "output": "probabilities",
        "params_size": len(params),
        "params_sha256": hashlib.sha256(params).hexdigest(),
    }
    assert got["PreProcess"] == {"transform_ops": [{"ToCHWImage": None}]}
    assert got["ppcls"] == {"DecodeImage": {"to_rgb": True}}
    assert got["PostProcess"] == {"Topk": {"topk": 2, "class_id_map_file": "names.txt"}}
    assert (tmp_path / "out" / "names.txt").read_text() == labels.read_text()
    description["PostProcess"]["class_id_map_file"] = str(tmp_path / "no.txt")
    with pytest.raises(DataError, match=r"no\.txt"):
        export_network(net, tmp_path / "out", SHAPE, inference_yml=description)


def test_names_that_look_like_numbers_stay_names(net: Net, tmp_path: Path) -> None:
    names = ["1e3", "2E-1", "no", "null", "12:30", "0x1f", "+5"]
    config = {"DataLoader": {"Train": {"dataset": {"class_names": names}}}}
    assert parse_yaml(run_files(config)["config.yaml"].decode(), "config.yaml") == config
    description = {"PostProcess": {"name": "Topk", "topk": 1, "label_list": names}}
    export_network(net, tmp_path, SHAPE, inference_yml=description)
    for read in (read_description, lambda file: yaml.safe_load(file.read_text())):
        assert read(tmp_path / "inference.yml")["PostProcess"]["Topk"]["label_list"] == names


@pytest.mark.parametrize("formats", slow_unless(lambda name: name == "paddle", ["paddle", "legacy"]))
def test_onnx_repeats_the_network(
    net: Net, batch: np.ndarray, tmp_path: Path, formats: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("paddle2onnx", reason="needs the extra onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    report = export_network(net, tmp_path / "out", SHAPE, formats=formats, onnx=True, sample=batch)
    assert "inference.onnx" in report.files
    assert "inference.onnx with ONNX Runtime" in report.differences
    assert max(report.differences.values()) < 1e-6
    alone = tmp_path / "alone.onnx"  # it needs no file beside it
    (tmp_path / "out" / "inference.onnx").rename(alone)
    capfd.readouterr()
    session = onnxruntime.InferenceSession(str(alone), providers=["CPUExecutionProvider"])
    assert "Removing initializer" not in capfd.readouterr().err  # its warning of unused constants
    (got,) = session.run(None, {"x": batch})
    np.testing.assert_allclose(got, softmax(logits_of(net, batch)), atol=1e-6)
    export_network(net, tmp_path / "out", SHAPE, onnx=True)
    assert (tmp_path / "out" / "inference.onnx").is_file()
    export_network(net, tmp_path / "out", SHAPE)
    assert not (tmp_path / "out" / "inference.onnx").exists()


def test_constants_that_no_operator_reads_are_dropped() -> None:
    pytest.importorskip("onnx", reason="needs the extra onnx")
    from onnx import TensorProto, helper

    def constant(name: str) -> Any:
        return helper.make_node("Constant", [], [name], value_float=1.0)

    def value(name: str, kind: int = TensorProto.FLOAT) -> Any:
        return helper.make_tensor_value_info(name, kind, [])

    branches = {
        "then_branch": helper.make_graph(
            [helper.make_node("Add", ["x", "inside"], ["a"])], "then", [], [value("a")]
        ),
        "else_branch": helper.make_graph([], "else", [], [value("returned")]),
    }
    nodes = [
        *(constant(name) for name in ("inside", "returned", "output", "unused")),
        helper.make_node("If", ["condition"], ["y"], **branches),
    ]
    inputs = [value("x"), value("condition", TensorProto.BOOL)]
    graph = helper.make_graph(nodes, "whole", inputs, [value("y"), value("output")])
    onnx_export._drop_unused_constants(graph)
    kept = [node.output[0] for node in graph.node]
    assert kept == ["inside", "returned", "output", "y"]


def test_an_onnx_file_that_differs_is_an_error(
    net: Net, batch: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paddle2onnx = pytest.importorskip("paddle2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    paddle.seed(4)
    other = tmp_path / "other"
    export_network(Net(), other, SHAPE)
    convert = paddle2onnx.export

    def convert_another_network(program: str, parameters: str, *rest: Any, **options: Any) -> Any:
        return convert(str(other / Path(program).name), str(other / Path(parameters).name), *rest, **options)

    monkeypatch.setattr(paddle2onnx, "export", convert_another_network)
    with pytest.raises(TrainingError, match=r"inference\.onnx with ONNX Runtime differs"):
        export_network(net, tmp_path / "out", SHAPE, onnx=True, sample=batch)
    assert os.listdir(tmp_path) == ["other"]


def test_onnx_without_its_extra(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paddle2onnx", None)
    with pytest.raises(ConfigError, match=r"export_onnx.*pip install 'ppcls\[onnx\]'"):
        export_network(net, tmp_path / "out", SHAPE, onnx=True)
    assert not os.listdir(tmp_path)


class Branches(nn.Layer):
    """Two convolutions beside each other, which one convolution can do."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2D(3, 4, 3, padding=1), nn.Conv2D(3, 4, 3, padding=1)
        self.one: nn.Layer | None = None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.left(x) + self.right(x) if self.one is None else self.one(x)

    def reparameterize(self) -> None:
        self.one = nn.Conv2D(3, 4, 3, padding=1)
        self.one.weight.set_value(self.left.weight + self.right.weight)
        self.one.bias.set_value(self.left.bias + self.right.bias)
        del self.left, self.right


def test_branches_are_merged_in_the_files_alone(batch: np.ndarray, tmp_path: Path) -> None:
    paddle.seed(0)
    net = nn.Sequential(Branches(), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(4, 7))
    before = {name: value.numpy() for name, value in net.state_dict().items()}
    want = softmax(logits_of(net, batch))
    export_network(net, tmp_path / "out", SHAPE, formats="both", sample=batch)
    size = (tmp_path / "out" / "inference.pdiparams").stat().st_size
    assert size < 4 * sum(value.size for value in before.values())
    for program in ("inference.json", "inference.pdmodel"):
        np.testing.assert_allclose(Program(tmp_path / "out" / program)(batch), want, atol=1e-6)
    after = {name: value.numpy() for name, value in net.state_dict().items()}
    assert list(after) == list(before)
    assert all((after[name] == before[name]).all() for name in before)
    assert (softmax(logits_of(net, batch)) == want).all()


def test_repvgg_is_written_without_its_branches(tmp_path: Path) -> None:
    net = ppcls.create_model("RepVGG_A0", class_num=7, return_patterns=["stage1[1].rbr_identity"])
    for name, value in net.state_dict().items():  # statistics of which the merged form must take account
        if name.endswith(("_mean", "_variance")):
            value.set_value(paddle.rand(value.shape) * 0.5 + 0.75)
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    want = logits_of(net, x)
    export_network(net, tmp_path / "out", (3, 32, 32), softmax=False, sample=x)
    got = Program(tmp_path / "out" / "inference.json")(x)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    inside = net(paddle.to_tensor(x))
    assert list(inside) == ["logits", "stage1[1].rbr_identity"]
    assert (inside["logits"].numpy() == want).all()


def test_a_folder_that_cannot_be_written(net: Net, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        export_network(net, tmp_path / "file" / "out", SHAPE)


@pytest.mark.parametrize("elsewhere", ["/elsewhere/code.py", None])
def test_what_cannot_be_written_is_named(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str | None
) -> None:
    def full(deployed: Any, shape: Any, name: str, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), elsewhere or str(folder / "inference.json"))

    monkeypatch.setattr(export, "trace_program", full)
    named = elsewhere or tmp_path / "out"  # not the folder beside it that is there for a moment
    with pytest.raises(ConfigError, match=f"cannot write to {named}: No space left"):
        export_network(net, tmp_path / "out", SHAPE)
