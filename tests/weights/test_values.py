"""Weights that are no numbers are named when they are loaded; no command shows a result made of them."""

import json
import re

import numpy as np
import paddle
import pytest
from support import distilled

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.data.postprocess import check_scores
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.errors import WeightsError
from ppcls.weights import load_into, read_params, write_params
from ppcls.weights.values import check_finite


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted(kind, bad):
    params = {name: np.zeros([2, 3], kind) for name in ("a", "b", "c")}
    check_finite(params, "file")
    params["b"][:, 1] = bad
    params["c"][0, 0] = bad
    with pytest.raises(WeightsError, match=r"^file: .* in 2 of 3 tensors: b \(2 of 6\), c \(1 of 6\)\. "):
        check_finite(params, "file")


def test_values_too_large_for_float32_are_infinite_and_counts_are_numbers():
    check_finite({"n": np.arange(5), "x": np.array(3e38), "empty": np.zeros([0], "float32")}, "file")
    with pytest.raises(WeightsError, match=r"x \(1 of 1\)"):
        check_finite({"x": np.array(1e39)}, "file")


def test_many_broken_tensors_make_a_short_message():
    with pytest.raises(WeightsError) as caught:
        check_finite({f"layer{i}": np.full([2], np.nan) for i in range(500)}, "file")
    assert "in 500 of 500 tensors: layer0 (2 of 2)," in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_broken_file_leaves_the_network_as_it_was_and_what_is_not_used_may_be_broken():
    network = ppcls.create_model("resnet8", class_num=4)
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    params = {name: value + 1 for name, value in before.items()}
    params["stem.conv.weight" if "stem.conv.weight" in params else next(iter(params))][0] = np.nan
    with pytest.raises(WeightsError, match="file: values that are not finite"):
        load_into(network, params, "file")
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    spare = {**before, "more": np.array([np.nan], "float32")}
    spare["fc.weight"] = np.full([before["fc.weight"].shape[0], 7], np.nan, "float32")
    spare["fc.bias"] = np.full([7], np.nan, "float32")
    report = load_into(network, spare, "file")
    assert "fc.weight" in report.wrong_shape


@pytest.fixture
def broken(tmp_path):
    """The file of a network with one NaN."""
    params = {n: v.numpy() for n, v in ppcls.create_model("resnet8", class_num=4).state_dict().items()}
    params["fc.weight"][3, 2] = np.nan
    write_params(tmp_path / "broken.pdparams", params)
    return tmp_path / "broken"


@pytest.mark.parametrize("mode", ["train", "eval", "infer", "export"])
def test_every_command_names_the_file_the_tensor_and_the_count(recipe, write_recipe, broken, capsys, mode):
    command = [mode, "-c", str(write_recipe(recipe)), "-o", f"Global.pretrained_model={broken}"]
    assert main(command) != 0
    printed = capsys.readouterr()
    assert re.search(r"broken\.pdparams: values that are not finite .*fc\.weight \(1 of 256\)", printed.err)
    assert "nan" not in printed.out
    assert "learning_rate" not in printed.err


def test_a_broken_teacher_is_named(recipe, write_recipe, broken, capsys):
    recipe = distilled(recipe, DistillationGTCELoss={"model_names": ["Student"]})
    recipe["Loss"]["Train"].append({"DistillationDMLLoss": {"model_name_pairs": [["Student", "Teacher"]]}})
    recipe["Arch"]["models"][0]["Teacher"] = {"name": "resnet8", "pretrained": str(broken)}
    assert main(["train", "-c", str(write_recipe(recipe))]) != 0
    assert "fc.weight (1 of 256)" in capsys.readouterr().err


def test_scores_that_are_no_numbers_are_no_result(recipe, write_recipe, tmp_path, capsys):
    """Weights may be finite while what they add up to is not: only the scores show it."""
    scores = np.full([5, 2], 0.5)
    check_scores(scores, list("abcde"))
    scores[[0, 1, 2, 4], 1] = np.nan
    with pytest.raises(WeightsError, match=r"no finite scores for a, b, c and 1 more \(4 of 5 images"):
        check_scores(scores, list("abcde"))

    params = {n: v.numpy() for n, v in ppcls.create_model("resnet8", class_num=4).state_dict().items()}
    params["fc.weight"][:] = 3e38
    write_params(tmp_path / "odd.pdparams", params)
    path = write_recipe(recipe)
    weights = ["-o", f"Global.pretrained_model={tmp_path}/odd"]
    assert main(["infer", "-c", str(path), *weights]) == 2
    printed = capsys.readouterr()
    assert "the network gives no finite scores for " in printed.err
    assert "class_ids" not in printed.out
    assert main(["eval", "-c", str(path), *weights]) == 0
    assert re.search(r"WARNING: \[Eval\]\[Epoch 0\]not finite: CELoss, loss\. ", capsys.readouterr().out)


def test_predict_shows_no_result_made_of_nan(recipe, write_recipe, tmp_path, monkeypatch):
    params = {n: v.numpy() for n, v in ppcls.create_model("resnet8", class_num=4).state_dict().items()}
    write_params(tmp_path / "fine.pdparams", params)
    weights = [f"Global.pretrained_model={tmp_path}/fine", "Global.export_format=paddle"]
    folder = Engine(load_config(write_recipe(recipe), weights, "export"), "export").export().folder
    predictor = Predictor(folder)
    image = np.zeros([32, 32, 3], np.uint8)
    assert len(predictor.predict(image)) == 1
    run = predictor._run
    monkeypatch.setattr(predictor, "_run", lambda batch: np.full_like(run(batch), np.nan))
    with pytest.raises(WeightsError, match="no finite scores for array 0"):
        predictor.predict(image)


def test_the_first_step_does_not_blame_the_learning_rate(recipe, write_recipe, capsys):
    recipe["Loss"]["Train"] = [{"CELoss": {"weight": 3e38}}]
    recipe["Loss"]["Train"].append({"CELoss": {"weight": 3e38}})
    assert main(["train", "-c", str(write_recipe(recipe))]) == 1
    text = capsys.readouterr().err
    assert "the loss is not finite on the first batch, before anything was trained: " in text
    assert "learning_rate" not in text
    assert ".png" in text


# ------------------------------------------------------------------ parameters of losses


@pytest.fixture
def generation(recipe):
    """A recipe with MGD as its second loss, whose generator learns."""
    pair = {"model_name_pairs": [["Student", "Teacher"]]}
    maps = {"base_loss_name": "MGDLoss", "s_key": "blocks[1]", "t_key": "blocks[3]"}
    recipe = distilled(
        recipe, DistillationGTCELoss={"model_names": ["Student"]}, DistillationPairLoss={**pair, **maps}
    )
    for network, layer in zip(recipe["Arch"]["models"], ("blocks[3]", "blocks[1]"), strict=True):
        next(iter(network.values()))["return_patterns"] = [layer]
    return recipe


def reference_file(path, run, **changes):
    """Write the weights of a run as PaddleClas does: what losses learn is among them."""
    params = {name: value.numpy() for name, value in run.parts.model.state_dict().items()}
    losses = {
        name.replace("layers.", "loss_func.", 1): paddle.randn(value.shape).numpy()
        for name, value in run.parts.loss.state_dict().items()
    }
    write_params(path, {**params, **losses, **changes})
    return losses


def test_the_generator_of_mgd_is_loaded_from_a_file_of_paddleclas(generation, write_recipe, tmp_path, capsys):
    path = write_recipe(generation)
    file = tmp_path / "reference.pdparams"
    run = Engine(load_config(path), "train").build_run()
    run.parts.loader.close()
    losses = reference_file(file, run)
    assert all(name.startswith("loss_func.1.loss_func.0.generation.") for name in losses)
    weights = [f"Global.pretrained_model={file}"]
    run = Engine(load_config(path, weights), "train").build_run()
    run.parts.loader.close()
    for name, value in run.parts.loss.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), losses[name.replace("layers.", "loss_func.", 1)])
    capsys.readouterr()
    Engine(load_config(path, weights, "eval"), "eval").eval()
    printed = capsys.readouterr().out
    assert f"{file}: {len(losses)} parameters of losses (loss_func.1) left out" in printed

    broken = {"loss_func.1.loss_func.0.generation.0.bias": np.full([32], np.inf, "float32")}
    reference_file(file, run, **broken)
    with pytest.raises(WeightsError, match=r"loss_func\.1\.loss_func\.0\.generation\.0\.bias \(32 of 32\)"):
        Engine(load_config(path, weights), "train").build_run()


def test_what_does_not_fit_is_named(generation, write_recipe, tmp_path, caplog):
    path = write_recipe(generation)
    file = tmp_path / "reference.pdparams"
    run = Engine(load_config(path), "train").build_run()
    run.parts.loader.close()
    shape = [3, 3]
    changes = {
        "loss_func.0.more": np.zeros(shape, "float32"),
        "loss_func.1.loss_func.0.generation.0.bias": np.zeros(shape, "float32"),
    }
    losses = reference_file(file, run, **changes)
    with caplog.at_level("INFO", "ppcls"):
        run = Engine(load_config(path, [f"Global.pretrained_model={file}"]), "train").build_run()
    run.parts.loader.close()
    assert f"{len(losses) - 1} of {len(losses)} parameters of losses loaded from {file}" in caplog.text
    (warning,) = (r.getMessage() for r in caplog.records if "do not fit the losses" in r.getMessage())
    assert warning.endswith(": loss_func.1.loss_func.0.generation.0.bias, loss_func.0.more")


def test_a_finished_run_keeps_finite_rows(recipe, write_recipe, tmp_path):
    """What a healthy run writes is finite: no check refuses a file of our own."""
    Engine(load_config(write_recipe(recipe), ["Global.epochs=1"]), "train").train()
    folder = tmp_path / "output/resnet8"
    check_finite(read_params(folder / "latest.pdparams"), "latest")
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert all(np.isfinite(v) for v in json.loads(line).values() if not isinstance(v, str))
