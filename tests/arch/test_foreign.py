"""Teachers that come as files answer as the networks they were made from."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from ppcls import create_model
from ppcls.arch import build_model
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.export import export_network
from ppcls.errors import ConfigError, WeightsError
from ppcls.onnx_graph import node_outputs
from ppcls.onnx_program import OnnxProgram
from ppcls.runtime import fingerprint

SHAPE = (3, 16, 16)


class _Both(nn.Layer):
    """Gives logits and a feature map as a plain tuple, for a file with several outputs."""

    def __init__(self, net: nn.Layer) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: paddle.Tensor) -> Any:
        out = self.net(x)
        return out["logits"], out["blocks[2]"]


@pytest.fixture(scope="module")
def teacher() -> nn.Layer:
    paddle.seed(3)
    net = create_model("resnet8", class_num=4, return_patterns=["blocks[2]"])
    net.eval()
    return net


@pytest.fixture(scope="module")
def images() -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).normal(0, 1, (3, *SHAPE)).astype(np.float32))


@pytest.fixture(scope="module")
def folder(teacher: nn.Layer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    spec = [paddle.static.InputSpec([None, *SHAPE], "float32", "x")]
    both = paddle.jit.to_static(_Both(teacher), input_spec=spec, full_graph=True)
    paddle.jit.save(both, str(folder / "inference"))
    return folder


@pytest.fixture(scope="module")
def onnx_file(folder: Path) -> Path:
    pytest.importorskip("onnxruntime")
    paddle2onnx = pytest.importorskip("paddle2onnx")
    file = folder / "teacher.onnx"
    paddle2onnx.export(str(folder / "inference.json"), str(folder / "inference.pdiparams"), str(file))
    return file


@pytest.fixture(params=["PaddleInferenceModel", "OnnxModel"])
def node(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    path = folder if request.param == "PaddleInferenceModel" else request.getfixturevalue("onnx_file")
    return {"name": request.param, "path": str(path)}


def close(found: paddle.Tensor, wanted: paddle.Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_logits_and_named_outputs(node: dict, teacher: nn.Layer, images: paddle.Tensor) -> None:
    wanted = teacher(images)
    net = build_model(node)
    net.eval()
    close(net(images), wanted["logits"])
    feature = net._runner.outputs[1]
    net.update_res([feature])
    outputs = net(images)
    assert list(outputs) == ["logits", feature]
    close(outputs[feature], wanted["blocks[2]"])
    swapped = build_model({**node, "logits": feature, "return_patterns": [net._runner.outputs[0]]})
    swapped.eval()
    close(swapped(images)["logits"], wanted["blocks[2]"])
    assert not net.state_dict()


def test_unknown_outputs_are_named(node: dict) -> None:
    with pytest.raises(ConfigError, match="has no output 'blocks'"):
        build_model({**node, "return_patterns": ["blocks"]})
    with pytest.raises(ConfigError, match="has no output 'scores'"):
        build_model({**node, "logits": "scores"})


def test_tensors_inside_an_onnx_graph(
    onnx_file: Path, teacher: nn.Layer, images: paddle.Tensor, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file))
    feature = model.graph.output[1].name
    del model.graph.output[1]
    file = tmp_path / "one_output.onnx"
    onnx.save(model, str(file))
    # The names are those that the package for ONNX finds.
    found = node_outputs(file.read_bytes())
    assert found == {name: node.op_type for node in model.graph.node for name in node.output if name}
    node = {"name": "OnnxModel", "path": str(file)}
    net = build_model({**node, "return_patterns": [feature]})
    net.eval()
    wanted = teacher(images)
    outputs = net(images)
    assert list(outputs) == ["logits", feature]
    close(outputs["logits"], wanted["logits"])
    close(outputs[feature], wanted["blocks[2]"])
    assert net.outputs == [model.graph.output[0].name]
    assert feature in [name for name, _, _ in net.inner_layers()]
    # Another tensor does not drop the first one.
    other = next(name for name, kind, _ in net.inner_layers() if kind == "Conv")
    net.update_res([feature, other])
    assert list(net(images)) == ["logits", feature, other]
    swapped = build_model({**node, "logits": feature})
    swapped.eval()
    close(swapped(images), wanted["blocks[2]"])
    program = pickle.loads(pickle.dumps(OnnxProgram(file, 1, "cpu", [feature])))
    np.testing.assert_allclose(program.run(images.numpy(), [feature])[0], outputs[feature], rtol=1e-5)
    with pytest.raises(ConfigError, match="has no output 'blocks'"):
        build_model({**node, "return_patterns": ["blocks"]})
    content = file.read_bytes()
    with pytest.raises(ValueError, match="longer than the message"):
        node_outputs(content[: len(content) // 2])


def test_probabilities_become_logits_up_to_a_constant(
    tmp_path: Path, teacher: nn.Layer, images: paddle.Tensor
) -> None:
    plain = create_model("resnet8", class_num=4)
    plain.set_state_dict(teacher.state_dict())
    plain.eval()
    # a bare folder of probabilities and one that says so in its inference.yml
    export_network(plain, tmp_path, SHAPE, softmax=True)
    net = build_model({"name": "PaddleInferenceModel", "path": str(tmp_path)})
    net.eval()
    found, wanted = net(images).numpy(), plain(images).numpy()
    np.testing.assert_allclose(np.diff(found, axis=1), np.diff(wanted, axis=1), rtol=1e-3, atol=1e-4)
    raw = build_model({"name": "PaddleInferenceModel", "path": str(tmp_path), "probabilities": False})
    raw.eval()
    np.testing.assert_allclose(raw(images).numpy().sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["PaddleInferenceModel", "OnnxModel"])
def test_the_first_images_tell_whether_a_file_of_another_program_gives_probabilities(
    tmp_path: Path,
    teacher: nn.Layer,
    images: paddle.Tensor,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = create_model("resnet8", class_num=4)
    plain.set_state_dict(teacher.state_dict())
    plain.eval()
    export_network(plain, tmp_path, SHAPE, softmax=True)
    path = tmp_path
    if kind == "OnnxModel":
        pytest.importorskip("onnxruntime")
        paddle2onnx = pytest.importorskip("paddle2onnx")
        path = tmp_path / "net.onnx"
        program, params = (str(tmp_path / f"inference.{end}") for end in ("json", "pdiparams"))
        paddle2onnx.export(program, params, str(path))
    (tmp_path / "inference.yml").unlink(missing_ok=True)
    node = {"name": kind, "path": str(path)}
    net = build_model(node)
    net.eval()
    wanted = plain(images).numpy()
    np.testing.assert_allclose(np.diff(net(images), axis=1), np.diff(wanted, axis=1), rtol=1e-3, atol=1e-4)
    assert net.probabilities
    raw = build_model({**node, "probabilities": False})
    raw.eval()
    caplog.clear()
    for _ in range(2):
        np.testing.assert_allclose(raw(images).numpy().sum(1), 1, rtol=1e-5)
    assert caplog.text.count("but they are probabilities") == 1


def test_a_teacher_of_features_needs_no_logits(
    folder: Path, teacher: nn.Layer, images: paddle.Tensor, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    paddle2onnx = pytest.importorskip("paddle2onnx")
    file = tmp_path / "map.onnx"
    paddle2onnx.export(str(folder / "inference.json"), str(folder / "inference.pdiparams"), str(file))
    model = onnx.load(str(file))
    del model.graph.output[0]
    onnx.save(model, str(file))
    net = build_model({"name": "OnnxModel", "path": str(file)})
    net.eval()
    net.update_res(net.outputs)
    close(net(images)[net.outputs[0]], teacher(images)["blocks[2]"])


def test_a_file_that_gives_no_logits_is_named(tmp_path: Path, images: paddle.Tensor) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    value = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    node = onnx.helper.make_node("ReduceMean", ["x"], ["label"], axes=[1, 2, 3], keepdims=0)
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", shape=["N", *SHAPE])], [value("label", shape=["N"])]
    )
    file = tmp_path / "label.onnx"
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), file
    )
    net = build_model({"name": "OnnxModel", "path": str(file)})
    net.eval()
    with pytest.raises(ConfigError, match=r"'label' of .*has the shape \[N\], expected logits"):
        net(images)


def test_it_refuses_to_train(node: dict, images: paddle.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"models\.0\.Teacher: \w+ cannot be trained"):
        build_model({"name": "DistillationModel", "models": [{"Teacher": node}]})
    net = build_model(node)
    net.train()
    with pytest.raises(ConfigError, match="cannot be trained"):
        net(images)


def test_parameters_of_another_export_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    params = copy / "inference.pdiparams"
    described = {"Global": {"softmax": True, **fingerprint(params)}}
    (copy / "inference.yml").write_text(json.dumps(described))
    node = {"name": "PaddleInferenceModel", "path": str(copy)}
    model = build_model(node)
    assert model.probabilities
    assert len(model.outputs) == 2
    content = params.read_bytes()
    params.write_bytes(content[:-4] + b"9999")
    with pytest.raises(WeightsError, match="SHA-256"):
        assert build_model(node).outputs


def test_files_that_are_missing_or_something_else(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.onnx does not exist"):
        build_model({"name": "OnnxModel", "path": str(tmp_path / "gone.onnx")})
    with pytest.raises(WeightsError, match="neither"):
        build_model({"name": "PaddleInferenceModel", "path": str(tmp_path), "logits": "x"})
    pytest.importorskip("onnxruntime")
    (tmp_path / "page.onnx").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match=r"page\.onnx is not a model"):
        build_model({"name": "OnnxModel", "path": str(tmp_path / "page.onnx"), "logits": "x"})


def test_without_onnx_runtime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.onnx").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"ppcls\[onnx\]"):
        build_model({"name": "OnnxModel", "path": str(tmp_path / "x.onnx"), "logits": "x"})


def test_a_fixed_batch_and_a_fixed_size(onnx_file: Path, images: paddle.Tensor, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(onnx_file))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dims[0].dim_value, dims[2].dim_value] == [0, 16]
    dims[0].dim_value = 1
    onnx.save(model, str(tmp_path / "one.onnx"))
    whole = build_model({"name": "OnnxModel", "path": str(onnx_file)})
    single = build_model({"name": "OnnxModel", "path": str(tmp_path / "one.onnx")})
    whole.eval()
    single.eval()
    close(single(images), whole(images))
    with pytest.raises(ConfigError, match=r"takes images \[3, 16, 16\].*input_size"):
        whole(paddle.zeros([2, 3, 40, 40]))


def test_a_whole_run(recipe: dict, write_recipe: Any, node: dict, tmp_path: Path) -> None:
    from support import distilled

    content = distilled(recipe, DistillationKLDivLoss={"model_name_pairs": [["Student", "Teacher"]]})
    content["Arch"]["models"][0] = {"Teacher": {**node, "input_size": 16}}
    both = {"DistillationTopkAcc": {"model_key": "Teacher", "topk": [1]}}
    content["Metric"]["Eval"].append(both)
    path = write_recipe(content)
    engine = Engine(load_config(path), "train")
    engine.train()
    saved = paddle.load(str(engine.folder / "latest.pdparams"))
    assert saved
    assert not any("Teacher" in name for name in saved)
    weights = [f"Global.pretrained_model={engine.folder / 'latest'}"]
    found = Engine(load_config(path, weights, mode="eval"), "eval").eval()
    assert any("Teacher" in name for name in found)
    content["Arch"]["freeze_params_list"] = [False, False]
    with pytest.raises(ConfigError, match=r"Arch\.models\.0\.Teacher: \w+ cannot be trained"):
        load_config(write_recipe(content))


def test_a_teacher_is_evaluated_alone(
    recipe: dict, write_recipe: Any, node: dict, tmp_path: Path, images: paddle.Tensor
) -> None:
    recipe["Arch"] = {**node, "class_num": 4}
    path = write_recipe(recipe)
    found = Engine(load_config(path, mode="eval"), "eval").eval()
    assert 0 <= found["top1"] <= 1
    with pytest.raises(ConfigError, match=r"knows 4 classes, but class_num is 5"):
        Engine(load_config(path, ["Arch.class_num=5"], mode="eval"), "eval").eval()
    with pytest.raises(ConfigError, match=r"Arch.*class_num: expected 1 or more, got -1"):
        load_config(path, ["Arch.class_num=-1"], mode="eval")


def test_the_classes_of_a_group_are_not_those_of_a_file(node: dict) -> None:
    student = {"name": "resnet8"}
    model = {"name": "DistillationModel", "class_num": 7, "freeze_params_list": [True, False]}
    net = build_model({**model, "models": [{"Teacher": node}, {"Student": student}]})
    assert net.network("Teacher").class_num is None
    assert net(paddle.zeros([2, *SHAPE]))["Student"].shape == [2, 7]


def test_another_precision_has_the_preprocessing_of_the_network_too(
    folder: Path, images: paddle.Tensor
) -> None:
    node = {"name": "PaddleInferenceModel", "path": str(folder)}
    own = {"mean": [0.4] * 3, "std": [0.2] * 3, "input_size": 32}
    pair = [{"Teacher": {**node, **own}}, {"Student": {"name": "resnet8", "class_num": 4}}]
    arch = {"name": "DistillationModel", "freeze_params_list": [True, False], "models": pair}
    model = build_model(arch, normalize={"mean": [0.5] * 3, "std": [0.25] * 3})
    network = model.network("Teacher")
    given = network(images)
    answered = network.in_precision("float32")(images)
    np.testing.assert_array_equal(_logits(answered), _logits(given))
    without = build_model({**arch, "models": [{"Teacher": node}, pair[1]]}).network("Teacher")
    assert not np.allclose(_logits(given), _logits(without(images)))


def _logits(output: Any) -> np.ndarray:
    return (output["logits"] if isinstance(output, dict) else output).numpy()
