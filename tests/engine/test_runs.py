"""Whole runs of a small network on real pixels: train, evaluate, infer, export, and continue after a stop."""

import json
import re

import numpy as np
import paddle
import pytest
from engine_hooks import StopAt
from support import distilled, slow_unless

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.deploy import Predictor
from ppcls.engine import Engine
from ppcls.engine.run import Timing
from ppcls.engine.train import train_epoch
from ppcls.errors import ConfigError
from ppcls.report import write_report
from ppcls.report.runs import read_run
from ppcls.run_states import encode_states, read_states
from ppcls.weights import read_params

KL = {
    "DistillationKLDivLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]], "temperature": 4.0}
}


def train(path, *overrides, hooks=()):
    return Engine(load_config(path, list(overrides)), "train").train(hooks=hooks)


def same_files(a, b):
    first, second = read_params(a), read_params(b)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_train_eval_infer_export_agree(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(recipe)
    best = train(path)
    folder = tmp_path / "output" / "resnet8"
    assert {p.name for p in folder.glob("*.pdparams")} == {
        "best_model.pdparams", "latest.pdparams", "epoch_1.pdparams", "epoch_2.pdparams"
    }  # fmt: skip
    weights = f"Global.pretrained_model={folder / 'best_model'}"
    found = Engine(load_config(path, [weights], "eval"), "eval").eval()
    assert found["top1"] == best["top1"]
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-6)

    results = Engine(load_config(path, [weights], "infer"), "infer").infer()
    assert len(results) == 12
    assert list(results[0]) == ["class_ids", "scores", "file_name", "label_names"]
    report = Engine(load_config(path, [weights], "export"), "export").export()
    assert {"inference.json", "inference.pdmodel", "inference.pdiparams", "inference.yml"} <= set(
        report.files
    )
    assert max(report.differences.values()) < 1e-5
    deployed = Predictor(str(report.folder)).predict(recipe["Infer"]["infer_imgs"])
    for mine, theirs in zip(results, deployed, strict=True):
        assert mine["file_name"] == theirs["file_name"]
        assert mine["class_ids"] == theirs["class_ids"]
        np.testing.assert_allclose(mine["scores"], theirs["scores"], atol=2e-5)


def test_log_lines_are_those_parsers_know(recipe, write_recipe, tmp_path, capsys):
    assert main(["train", "-c", str(write_recipe(recipe))]) == 0
    printed = capsys.readouterr().out
    number = r"\d+\.\d{5}"
    assert re.search(
        r"\[Train\]\[Epoch 1/2\]\[Iter: 0/3\]lr\(Cosine\): 0\.05000000, "
        rf"top1: {number}, top2: {number}, CELoss: {number}, loss: {number}, "
        rf"batch_cost: {number}s, reader_cost: {number}, ips: {number} samples/s, eta: 0:00:0\d",
        printed,
    )
    assert re.search(rf"\[Train\]\[Epoch 2/2\]\[Avg\]top1: {number}, ", printed)
    assert re.search(rf"\[Eval\]\[Epoch 2\]\[Avg\]CELoss: {number}, loss: {number}, top1: ", printed)
    assert re.search(rf"\[Eval\]\[Epoch 2\]\[best metric: {number}\]", printed)
    folder = tmp_path / "output" / "resnet8"
    assert "[Train][Epoch 2/2][Avg]" in (folder / "train.log").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["epoch"], r["step"]) for r in rows if r["kind"] == "eval"] == [
        ("eval", 1, 3), ("eval", 2, 6)
    ]  # fmt: skip
    assert {"loss", "CELoss", "top1", "lr", "reader_cost"} <= rows[0].keys()


def test_the_page_counts_the_images_of_small_batches_and_small_steps_too(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    train(path, "Global.update_freq=2", "DataLoader.Train.sampler.batch_size=5", "Global.epochs=3")
    run = read_run(tmp_path / "output" / "resnet8")
    images = run.progress.lists["DataLoader.Train.dataset"]["count"]
    assert images % 5
    batches = -(-images // 5)
    assert batches % 2
    assert (run.progress.seen_images, run.progress.seen_batches) == (3 * images, 3 * batches)
    assert f">{3 * images}<" in write_report(run.folder).read_text("utf-8")


def test_a_run_that_an_earlier_version_began_does_not_count_the_rest_alone(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    with pytest.raises(SystemExit):
        train(path, hooks=[StopAt(4)])
    folder = tmp_path / "output" / "resnet8"
    file = folder / "latest.pdstates"
    progress, files = read_states(file)
    assert progress.seen_batches
    progress.seen_batches = progress.seen_images = 0
    file.write_bytes(encode_states(progress, files))
    train(path, "Global.checkpoints=auto")
    run = read_run(folder)
    assert (run.progress.seen_batches, run.progress.seen_images) == (0, 0)
    assert "images seen" in write_report(folder).read_text("utf-8")


def test_the_speed_is_that_of_the_batches_whose_time_it_is(recipe, write_recipe, capsys):
    train(write_recipe(recipe), "DataLoader.Train.sampler.batch_size=5", "Global.print_batch_step=2")
    line = re.search(r"Epoch 2/2\]\[Iter: 2/3\].*batch_cost: (\S+)s,.*ips: (\S+) ", capsys.readouterr().out)
    assert float(line[1]) * float(line[2]) == pytest.approx((5 + 2) / 2, rel=0.01)
    timing = Timing()
    timing.begin()
    for images in (8, 8, 2):
        timing.batch_is_ready()
        timing.end(images)
    timing.summarize()
    assert timing.batch_images == 6


def test_a_run_is_repeated_bit_by_bit_whatever_the_workers(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    for workers in (0, 3):
        train(
            path, f"Global.output_dir={tmp_path}/w{workers}", f"DataLoader.Train.loader.num_workers={workers}"
        )
    same_files(tmp_path / "w0/resnet8/latest.pdparams", tmp_path / "w3/resnet8/latest.pdparams")


@pytest.mark.parametrize("stop_at", slow_unless(lambda n: n == 4, [1, 3, 4]))
def test_a_stopped_run_goes_on_exactly(recipe, write_recipe, tmp_path, stop_at):
    recipe = distilled(recipe, **KL, DistillationGTCELoss={"model_names": ["Student"]})
    path = write_recipe(recipe)
    train(path, f"Global.output_dir={tmp_path}/whole")
    with pytest.raises(SystemExit) as stopped:
        train(path, f"Global.output_dir={tmp_path}/cut", hooks=[StopAt(stop_at)])
    assert stopped.value.code == 130
    paddle.seed(99)  # whatever the process did before must not matter
    latest = f"Global.checkpoints={tmp_path}/cut/DistillationModel/latest"
    train(path, f"Global.output_dir={tmp_path}/cut", latest)
    for tag in ("latest", "best_model", "epoch_2"):
        for suffix in (".pdparams", ".pdopt"):
            name = f"DistillationModel/{tag}{suffix}"
            same_files(tmp_path / "whole" / name, tmp_path / "cut" / name)
    states = [
        json.loads((tmp_path / d / "DistillationModel/latest.pdstates").read_text()) for d in ("whole", "cut")
    ]
    for state in states:
        state.pop("files")
        state.pop("crc32")
    assert states[0] == states[1]


def test_a_finished_run_says_so(recipe, write_recipe, tmp_path, capsys):
    path = write_recipe(recipe)
    train(path)
    before = (tmp_path / "output/resnet8/latest.pdparams").read_bytes()
    arguments = ["train", "-c", str(path), "-o", f"Global.checkpoints={tmp_path}/output/resnet8/latest"]
    assert main(arguments) == 0
    assert "already finished" in capsys.readouterr().out
    assert (tmp_path / "output/resnet8/latest.pdparams").read_bytes() == before


def test_another_default_dtype_is_named(recipe, write_recipe):
    path = write_recipe(recipe)
    paddle.set_default_dtype("float64")
    try:
        with pytest.raises(
            ConfigError, match="default dtype of Paddle is float64, but ppcls computes in float32"
        ):
            train(path)
    finally:
        paddle.set_default_dtype("float32")


def test_a_second_run_overwrites_nothing(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    train(path)
    before = (tmp_path / "output/resnet8/best_model.pdparams").read_bytes()
    train(path, "Global.seed=4")
    assert (tmp_path / "output/resnet8.earlier-1/best_model.pdparams").read_bytes() == before
    assert (tmp_path / "output/resnet8/best_model.pdparams").read_bytes() != before


def test_distillation_leaves_the_teacher_alone_and_out(recipe, write_recipe, tmp_path):
    net = ppcls.create_model("resnet14", class_num=4)
    paddle.save(net.state_dict(), str(tmp_path / "teacher.pdparams"))
    recipe = distilled(recipe, **KL)
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher")
    path = write_recipe(recipe)
    engine = Engine(load_config(path), "train")
    run = engine.build_run()
    given = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    train_epoch(run)
    for name, value in run.parts.model.network("Teacher").state_dict().items():
        np.testing.assert_array_equal(value.numpy(), given[name], err_msg=name)
    x = paddle.randn([2, 3, 32, 32])
    net.eval()
    run.parts.model.train()
    np.testing.assert_array_equal(run.parts.model(x)["Teacher"].numpy(), net(x).numpy())

    train(path)
    folder = tmp_path / "output" / "DistillationModel"
    whole, alone = (
        read_params(folder / "best_model.pdparams"),
        read_params(folder / "best_model_student.pdparams"),
    )
    assert {f"Student.{name}" for name in alone} == set(whole)
    (tmp_path / "teacher.pdparams").unlink()  # evaluation of a finished student needs no teacher
    for weights in ("best_model", "best_model_student"):
        config = load_config(path, [f"Global.pretrained_model={folder / weights}"], "eval")
        assert "top1" in Engine(config, "eval").eval()
    config = load_config(path, [f"Global.pretrained_model={folder / 'best_model'}"], "export")
    report = Engine(config, "export").export()
    exported = sum(np.prod(v.shape) for n, v in alone.items())
    size = (report.folder / "inference.pdiparams").stat().st_size
    assert size < 4 * exported * 1.05 + 4096  # the student and nothing of the teacher


def test_untrained_networks_are_not_shown(recipe, write_recipe, capsys):
    for mode in ("infer", "eval", "export"):
        assert main([mode, "-c", str(write_recipe(recipe))]) == 2
        assert "Global.pretrained_model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ("train_list.txt", r"loss is not finite at step 1 .*learning rate 3e\+38(.|\n)*\.png"),
        ("one_batch.txt", r"\S+ is not finite after step 0, although the losses so far are"),
    ],
)
def test_numbers_that_are_not_finite_end_the_run(
    recipe, write_recipe, image_folder, tmp_path, capsys, samples, message
):
    """In the second case the only loss is fine and the step after it ruins the weights."""
    lines = (image_folder / "train_list.txt").read_text().splitlines()[:5]
    (image_folder / "one_batch.txt").write_text("\n".join(lines) + "\n")
    recipe["DataLoader"]["Train"]["dataset"]["cls_label_path"] = str(image_folder / samples)
    recipe["Loss"]["Train"] = [{"CELoss": {"weight": 1e30}}]
    recipe["Optimizer"]["lr"] = {"name": "ConstLR", "learning_rate": 3e38}
    assert main(["train", "-c", str(write_recipe(recipe))]) == 1
    text = capsys.readouterr().err
    assert re.search(message, text), text
    assert "Traceback" not in text
    assert not list((tmp_path / "output/resnet8").glob("*.pdparams"))


def test_a_gpu_that_is_not_there(recipe, write_recipe, capsys):
    if paddle.device.is_compiled_with_cuda():
        pytest.skip("there is one")
    assert main(["train", "-c", str(write_recipe(recipe)), "-o", "Global.device=gpu"]) == 2
    assert "Global.device=cpu" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made(recipe, write_recipe, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["train", "-c", str(write_recipe(recipe)), "-o", f"Global.output_dir={tmp_path}/file"]) == 2
    assert "Global.output_dir" in capsys.readouterr().err


def test_a_metric_on_the_teacher_gets_the_teachers_own_weights(recipe, write_recipe, tmp_path, capsys):
    net = ppcls.create_model("resnet14", class_num=4)
    paddle.save(net.state_dict(), str(tmp_path / "teacher.pdparams"))
    recipe = distilled(recipe, **KL)
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher")
    recipe["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teacher", "topk": [1]}})
    path = write_recipe(recipe)
    trained = train(path)
    weights = f"Global.pretrained_model={tmp_path}/output/DistillationModel/best_model"
    found = Engine(load_config(path, [weights], "eval"), "eval").eval()
    assert found["top1_Teacher"] == trained["top1_Teacher"]
    no_teacher = ["-o", "Arch.models.0.Teacher.pretrained=False"]
    assert main(["eval", "-c", str(path), "-o", weights, *no_teacher]) == 2
    assert "leaves out the frozen network Teacher" in capsys.readouterr().err
