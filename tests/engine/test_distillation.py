"""Distillation runs as a whole: shapes that are found, inputs that are adapted, classes that differ."""

import copy

import numpy as np
import paddle
import pytest
from support import KL, distilled, slow_unless

import ppcls
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.train import train_epoch
from ppcls.errors import ConfigError
from ppcls.loss import build_loss
from ppcls.loss.dropping import without_teachers
from ppcls.weights import read_params, write_params

CE = {"DistillationGTCELoss": {"model_names": ["Student"]}}
PAIR = {"model_name_pairs": [["Student", "Teacher"]]}
AFD = {"AFDLoss": {"weight": 10.0, "model_name_pair": ["Student", "Teacher"]}}


def engine(path, mode, *overrides):
    return Engine(load_config(path, list(overrides), mode), mode)


def save(net, path):
    write_params(path, {name: value.numpy() for name, value in net.state_dict().items()})


def same_files(a, b):
    first, second = read_params(a), read_params(b)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def afd(recipe):
    """An AFD recipe that names neither keys nor shapes."""
    recipe = distilled(recipe, **CE, **AFD)
    teacher, student = recipe["Arch"]["models"]
    recipe["Arch"]["models"] = [
        {
            name: {
                "name": "AttentionModel",
                "freeze_params_list": [name == "Teacher", False],
                "models": [
                    {"Net": {**node, "return_patterns": ["blocks[1]", "blocks[2]"]}},
                    {"Transform": {"name": f"LinearTransform{name}", "qk_dim": 8}},
                ],
            }
        }
        for name, node in (*teacher.items(), *student.items())
    ]
    del recipe["Arch"]["freeze_params_list"]
    return recipe


def test_afd_from_training_to_export_without_a_shape_in_the_recipe(recipe, write_recipe, tmp_path, capsys):
    save(ppcls.create_model("resnet14", class_num=4), tmp_path / "teacher.pdparams")
    recipe = afd(recipe)
    recipe["Arch"]["models"][0]["Teacher"]["models"][0]["Net"]["pretrained"] = str(tmp_path / "teacher")
    path = write_recipe(recipe)
    best = engine(path, "train").train()
    assert "LinearTransformStudent: keys ['blocks[1]', 'blocks[2]'], s_shapes" in capsys.readouterr().out
    folder = tmp_path / "output/DistillationModel"
    whole, alone = (read_params(folder / f"best_model{end}.pdparams") for end in ("", "_student"))
    assert set(alone) == set(ppcls.create_model("resnet8", class_num=4).state_dict())
    assert {f"Student.Net.{name}" for name in alone} < set(whole)
    assert any(name.startswith("Teacher.Transform.") for name in whole)
    assert not any(name.startswith("Teacher.Net.") for name in whole)

    # The student alone: neither the teacher's weights nor the transforms are in the way.
    (tmp_path / "teacher.pdparams").rename(tmp_path / "elsewhere.pdparams")
    for weights in ("best_model", "best_model_student"):
        given = f"Global.pretrained_model={folder / weights}"
        assert engine(path, "eval", given).eval()["top1"] == best["top1"]
        assert len(engine(path, "infer", given).infer()) == 12
    report = engine(path, "export", given).export()
    assert max(report.differences.values()) < 1e-5
    assert (report.folder / "inference.pdiparams").stat().st_size < 4.2 * sum(
        map(np.size, alone.values())
    ) + 4096


def test_a_teacher_in_a_chain_is_evaluated_with_its_own_weights(recipe, write_recipe, tmp_path, capsys):
    teacher = ppcls.create_model("resnet14", class_num=4)
    save(teacher, tmp_path / "teacher.pdparams")
    recipe = afd(recipe)
    recipe["Arch"]["models"][0]["Teacher"]["models"][0]["Net"]["pretrained"] = str(tmp_path / "teacher")
    recipe["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teacher", "topk": [1]}})
    path = write_recipe(recipe)
    trained = engine(path, "train").train()
    weights = f"Global.pretrained_model={tmp_path}/output/DistillationModel/best_model"
    found = engine(path, "eval", weights).eval()
    assert found["top1_Teacher"] == trained["top1_Teacher"]
    built = engine(path, "eval", weights)._trained_model({"Student", "Teacher"})
    for name, value in built.infer_network("Teacher").state_dict().items():
        np.testing.assert_array_equal(value.numpy(), teacher.state_dict()[name].numpy(), err_msg=name)
    no_teacher = "Arch.models.0.Teacher.models.0.Net.pretrained=False"
    assert main(["eval", "-c", str(path), "-o", weights, "-o", no_teacher]) == 2
    assert "leaves out the frozen network Teacher" in capsys.readouterr().err


def test_afd_goes_on_exactly(recipe, write_recipe, tmp_path):
    path = write_recipe(afd(recipe))
    engine(path, "train", f"Global.output_dir={tmp_path}/whole").train()
    latest = f"Global.checkpoints={tmp_path}/whole/DistillationModel/epoch_1"
    paddle.seed(99)
    resumed = engine(path, "train", f"Global.output_dir={tmp_path}/cut", latest)
    # A teacher with random weights is not in the checkpoint; the seed makes the same one again.
    resumed.train()
    for suffix in (".pdparams", ".pdopt"):
        name = f"DistillationModel/latest{suffix}"
        same_files(tmp_path / "whole" / name, tmp_path / "cut" / name)


@pytest.mark.parametrize("model_first", [False, True])
def test_the_seed_is_that_of_the_run_whatever_else_draws(recipe, write_recipe, tmp_path, model_first):
    path = write_recipe(afd(recipe))
    once = "Global.epochs=1"
    engine(path, "train", f"Global.output_dir={tmp_path}/alone", once).train()
    ours = engine(path, "train", f"Global.output_dir={tmp_path}/beside", once)
    if model_first:
        ours.model  # noqa: B018 - it is built
    other = engine(path, "train", "Global.seed=99")
    other.model  # noqa: B018
    paddle.seed(98)
    ours.train()
    same_files(*(tmp_path / name / "DistillationModel/latest.pdparams" for name in ("alone", "beside")))


def test_each_engine_has_the_weights_of_its_own_seed(recipe, write_recipe):
    path = write_recipe(recipe)

    def first_weight(one):
        return one.model.parameters()[0].numpy()

    seeds = [f"Global.seed={seed}" for seed in (1, 2)]
    alone = [first_weight(engine(path, "train", seed)) for seed in seeds]
    together = [engine(path, "train", seed) for seed in seeds]
    for one, expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(first_weight(one), expected)


def test_the_seed_is_that_of_the_run_after_a_failed_attempt(recipe, write_recipe):
    path = write_recipe(recipe)
    alone = engine(path, "train").model.parameters()[0].numpy()
    ours = engine(path, "train")
    with pytest.raises(ConfigError):
        ours.build_run(hooks=[3])
    paddle.seed(99)
    run = ours.build_run()
    run.parts.loader.close()
    np.testing.assert_array_equal(run.parts.model.parameters()[0].numpy(), alone)


def test_shapes_that_the_network_contradicts_stop_before_training(recipe, write_recipe, tmp_path, capsys):
    recipe = afd(recipe)
    recipe["Arch"]["models"][1]["Student"]["models"][1]["Transform"]["s_shapes"] = [[32, 8, 8], [64, 3, 3]]
    assert main(["train", "-c", str(write_recipe(recipe))]) == 2
    text = capsys.readouterr().err
    assert "Arch.models.1.Student.models.1.Transform: s_shapes: [64, 3, 3] is given for 'blocks[2]'" in text
    assert "[64, 4, 4]" in text
    assert not list((tmp_path / "output").rglob("*.pdparams"))


def other_pipeline(recipe, **numbers):
    """The same recipe with other numbers in every NormalizeImage."""
    recipe = copy.deepcopy(recipe)
    chains = [recipe["DataLoader"][part]["dataset"]["transform_ops"] for part in ("Train", "Eval")]
    for op in [op for chain in (*chains, recipe["Infer"]["transforms"]) for op in chain]:
        if "NormalizeImage" in op:
            op["NormalizeImage"] |= numbers
    return recipe


def test_a_teacher_with_other_preprocessing(recipe, write_recipe, tmp_path):
    """Its accuracy and logits are those it has with a pipeline of its own; the student sees no difference."""
    own = {"mean": [0.2, 0.4, 0.6], "std": [0.5, 1.0, 0.125]}
    teacher = ppcls.create_model("resnet14", class_num=4)
    save(teacher, tmp_path / "teacher.pdparams")
    recipe = distilled(recipe, **CE, DistillationKLDivLoss=PAIR)
    recipe["Arch"]["models"][0]["Teacher"]["pretrained"] = str(tmp_path / "teacher")
    recipe["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teacher", "topk": [1]}})
    theirs = write_recipe(other_pipeline(recipe, **own), "theirs.yaml")
    recipe["Arch"]["models"][0]["Teacher"] |= own
    ours = write_recipe(recipe, "ours.yaml")

    batches, logits = {}, {}
    for name, path in (("ours", ours), ("theirs", theirs)):
        run = engine(path, "train", f"Global.output_dir={tmp_path}/{name}").build_run()
        batches[name] = next(iter(run.parts.loader.epoch(1)))
        run.parts.loader.close()
        run.parts.model.eval()
        logits[name] = run.parts.model(paddle.to_tensor(batches[name].image))
    assert (batches["ours"].index == batches["theirs"].index).all()
    assert np.abs(batches["ours"].image - batches["theirs"].image).max() > 0.1
    np.testing.assert_allclose(
        logits["ours"]["Teacher"].numpy(), logits["theirs"]["Teacher"].numpy(), rtol=1e-4, atol=1e-5
    )

    trained = engine(ours, "train").train()
    weights = [f"Global.pretrained_model={tmp_path}/output/DistillationModel/best_model"]
    found = engine(ours, "eval", *weights).eval()
    assert found["top1_Teacher"] == trained["top1_Teacher"]
    as_teacher = "Arch.infer_model_name=Teacher"
    results = [
        engine(path, "infer", as_teacher, f"Global.pretrained_model={tmp_path}/teacher").infer()
        for path in (ours, theirs)
    ]
    for mine, other in zip(*results, strict=True):
        assert mine["class_ids"] == other["class_ids"]
        np.testing.assert_allclose(mine["scores"], other["scores"], atol=2e-5)
    report = engine(ours, "export", as_teacher, f"Global.pretrained_model={tmp_path}/teacher").export()
    assert max(report.differences.values()) < 1e-4


def test_a_teacher_with_a_size_of_its_own_trains_a_student_and_is_exported(recipe, write_recipe, tmp_path):
    recipe = distilled(recipe, **CE, DistillationKLDivLoss=PAIR)
    recipe["Arch"]["models"][0]["Teacher"]["input_size"] = 24
    path = write_recipe(recipe)
    run = engine(path, "train").build_run()
    seen = []
    run.parts.model.network("Teacher").stem.register_forward_pre_hook(
        lambda _, x: seen.append(list(x[0].shape))
    )
    train_epoch(run)
    run.parts.loader.close()
    assert seen == [[5, 3, 24, 24], [5, 3, 24, 24], [2, 3, 24, 24]]
    save(run.parts.model.network("Teacher"), tmp_path / "teacher.pdparams")
    overrides = ("Arch.infer_model_name=Teacher", f"Global.pretrained_model={tmp_path}/teacher")
    assert max(engine(path, "export", *overrides).export().differences.values()) < 1e-4


def six_classes(recipe, tmp_path, **loss):
    save(ppcls.create_model("resnet14", class_num=6), tmp_path / "teacher.pdparams")
    recipe = distilled(recipe, **CE, **loss)
    recipe["Arch"]["models"][0]["Teacher"] |= {"class_num": 6, "pretrained": str(tmp_path / "teacher")}
    return recipe


def test_a_teacher_of_other_classes_is_refused_with_the_way_out(recipe, write_recipe, tmp_path):
    recipe = six_classes(recipe, tmp_path, DistillationKLDivLoss=PAIR)
    with pytest.raises(ConfigError, match="Student has 4 classes and Teacher 6.*give class_map, a file with"):
        load_config(write_recipe(recipe))


@pytest.mark.parametrize(
    "loss",
    slow_unless(
        lambda loss: loss in ("CE", "KLDiv", "DKD"), ["CE", "DML", "KLDiv", "DKD", "DIST", "WSL", "SKD"]
    ),
)
def test_a_class_map_lets_a_teacher_of_other_classes_teach(recipe, write_recipe, tmp_path, loss):
    classes = [5, 0, 3, 2]
    lines = [f"{mine} {theirs}" for mine, theirs in enumerate(classes)]
    (tmp_path / "classes.txt").write_text("\n".join(lines), encoding="utf-8")
    node = {**PAIR, "class_map": str(tmp_path / "classes.txt")}
    name = f"Distillation{loss}Loss"
    path = write_recipe(six_classes(recipe, tmp_path, **{name: node}))
    run = engine(path, "train", "Global.epochs=1").build_run()
    # The same as a teacher that knows the student's classes only, in the student's order.
    small = ppcls.create_model("resnet14", class_num=4)
    state = run.parts.model.network("Teacher").state_dict()
    head = [key for key in state if key.startswith("fc.")]
    for key, value in state.items():
        array = value.numpy()
        small.state_dict()[key].set_value(array[..., classes] if key in head else array)
    batch = next(iter(run.parts.loader.epoch(1)))
    image, label = paddle.to_tensor(batch.image), paddle.to_tensor(batch.label)
    small.eval()
    outputs = run.parts.model(image)
    assert outputs["Teacher"].shape[1] == 6
    expected = {**outputs, "Teacher": small(image)}
    plain = ppcls.loss.build_loss([{name: dict(PAIR)}])(expected, label)
    mapped = {key: float(value) for key, value in run.parts.loss(outputs, label).items()}
    for key, value in plain.items():
        if key != "loss":
            assert mapped[key] == pytest.approx(float(value), rel=1e-5)
    train_epoch(run)
    run.parts.loader.close()
    assert run.progress.step == 3


def test_processes_exchange_statistics_that_change_and_nothing_else(recipe):
    recipe = distilled(recipe, **KL)
    recipe["Arch"]["frozen_mode"] = "train"
    recipe["Arch"]["models"][1]["Student"]["freeze_befor"] = "blocks[0]"
    run = Engine(recipe, "train").build_run()
    run.parts.loader.close()
    model = run.parts.model
    names = {id(tensor): name for name, tensor in model.state_dict().items()}
    exchanged = {names[id(tensor)] for tensor in run.parts.buffers}
    assert exchanged
    assert all(name.endswith(("._mean", "._variance")) for name in exchanged)
    assert any(name.startswith("Teacher.") for name in exchanged)
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    model.train()
    model(paddle.randn([4, 3, 16, 16]))
    changed = {n for n, value in model.state_dict().items() if not np.array_equal(value.numpy(), before[n])}
    assert changed == exchanged


@pytest.mark.parametrize("pair", [["Student", "Teacher"], ["Teacher", "Student"]])
def test_a_teacher_that_is_left_out_counts_nothing_in_any_order(pair):
    loss = build_loss([{"DistillationDMLLoss": {"model_name_pairs": [pair]}}])
    outputs = {name: paddle.randn([3, 4]) for name in pair}
    with without_teachers({"Teacher"}):
        assert float(loss(outputs)["loss"]) == 0
    assert float(loss(outputs)["loss"]) > 0
