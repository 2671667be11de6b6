"""Training from a store of teacher outputs: the same weights as with the teacher, and no teacher."""

from __future__ import annotations

import copy
import json
import re
import shutil

import numpy as np
import paddle
import pytest
from support import KL, distilled, slow_unless, train

from ppcls.arch import create_model
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.hooks import Hook
from ppcls.engine.train import StopRequested
from ppcls.errors import WeightsError
from ppcls.teacher import answer as answer_module
from ppcls.teacher import store as store_module
from ppcls.weights import read_params, write_atomic

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
LAST = ["blocks[2]"]
BOTH = {"s_key": "blocks[2]", "t_key": "blocks[5]"}
PAIR_LOSS = {**PAIRS, **BOTH}
LOSSES = {
    "KD": KL,
    "DKD": {"DistillationDKDLoss": PAIRS},
    "DIST": {"DistillationDISTLoss": PAIRS},
    "WSL": {"DistillationWSLLoss": PAIRS},
    "SKD": {"DistillationSKDLoss": PAIRS},
    "MGD": {"DistillationPairLoss": {"base_loss_name": "MGDLoss", **PAIR_LOSS}},
    # Of a pooled feature: the projectors of a map would be large, and slow to save.
    "PEFD": {
        "DistillationPairLoss": {
            **PAIR_LOSS, "base_loss_name": "PEFDLoss", "s_key": "flatten", "t_key": "flatten"
        }
    },
    "RKD": {
        "DistillationRKDLoss": {
            **PAIRS, "student_keepkeys": ["blocks[2]"], "teacher_keepkeys": ["blocks[5]"]
        }
    },
    "OFD": {
        "OFDLoss": {
            "model_name_pair": ["Student", "Teacher"],
            "student_keys": ["blocks[2]"],
            "teacher_keys": ["blocks[5]"],
            "teacher_bns": ["blocks[5].conv1.bn"],
        }
    },
}  # fmt: skip
FEATURES = ("MGD", "PEFD", "RKD", "OFD")
# Together in one recipe: if the weights are the same bit by bit, every loss has seen the same.
GROUPS = (("KD",), ("DKD", "DIST", "WSL", "SKD"), FEATURES)


@pytest.fixture
def teacher(tmp_path):
    """Write a file of weights."""

    def make(seed, name="teacher", network="resnet14"):
        paddle.seed(seed)
        path = str(tmp_path / f"{name}.pdparams")
        paddle.save(create_model(network, class_num=4).state_dict(), path)
        return path

    return make


@pytest.fixture
def content(recipe, teacher, tmp_path):
    """A recipe with a store of full precision and a teacher that itself answers."""
    content = distilled(recipe, **copy.deepcopy(KL))
    content["Arch"]["models"][0]["Teacher"] |= {"pretrained": teacher(5), "frozen_engine": "eager"}
    content["Global"] |= {"eval_during_train": False, "print_batch_step": 100}
    content["TeacherStore"] = {"path": str(tmp_path / "store"), "precision": "float32", "features": "float32"}
    return content


@pytest.fixture
def run(write_recipe, tmp_path):
    """Train, and return the last weights."""

    def run(content, name, *overrides, code=0):
        path = write_recipe(content)
        assert train(path, f"Global.output_dir={tmp_path}/{name}", *overrides) == code
        return weights(tmp_path / name / "DistillationModel") if code == 0 else None

    return run


def weights(folder):
    return {name: np.asarray(value) for name, value in read_params(folder / "latest.pdparams").items()}


def live(content):
    return {key: value for key, value in content.items() if key != "TeacherStore"}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def with_losses(content, *names):
    content["Loss"]["Train"] = [
        {loss: copy.deepcopy(options)} for name in names for loss, options in LOSSES[name].items()
    ]
    if set(names) & set(FEATURES):
        content["Arch"]["models"][0]["Teacher"]["return_patterns"] = ["blocks[5]", "flatten"]
        content["Arch"]["models"][1]["Student"]["return_patterns"] = ["blocks[2]", "flatten"]
    return content


def check_equality(content, run, capsys):
    """The teacher live, the store being filled, and the store alone: three times the same run."""
    expected = run(live(content), "live")
    assert_same(expected, run(content, "filled"))
    capsys.readouterr()
    assert_same(expected, run(content, "read"))
    assert "is not built" in capsys.readouterr().out
    return expected


@pytest.mark.parametrize("names", GROUPS, ids="-".join)
def test_training_from_a_store_is_training_with_the_teacher(content, run, capsys, names):
    check_equality(with_losses(content, *names), run, capsys)


@pytest.mark.parametrize(
    "op", slow_unless(lambda op: op == "CutmixOperator", ["MixupOperator", "CutmixOperator"])
)
def test_mixed_images_are_mixed_again(content, run, capsys, op):
    content["DataLoader"]["Train"]["dataset"]["batch_transform_ops"] = [{op: {"alpha": 0.8}}]
    content["Metric"].pop("Train")
    check_equality(content, run, capsys)


def test_repeated_samples_and_accumulation(content, run, capsys):
    content["DataLoader"]["Train"]["sampler"] = {"name": "RASampler", "batch_size": 3, "num_repeats": 2}
    content["Global"]["update_freq"] = 2
    check_equality(content, run, capsys)


def test_images_without_labels(content, run, capsys, image_folder):
    content["Loss"]["Train"].append({"DistillationGTCELoss": {"model_names": ["Student"]}})
    other = copy.deepcopy(content["DataLoader"]["Train"])
    other["dataset"]["cls_label_path"] = str(image_folder / "val_list.txt")
    other["sampler"] |= {"batch_size": 4}
    content["DataLoader"]["UnLabelTrain"] = other
    content["DataLoader"]["Train"]["sampler"]["drop_last"] = True
    check_equality(content, run, capsys)


def test_several_teachers_one_with_its_own_preprocessing(content, run, capsys, teacher):
    second = {"name": "resnet8", "pretrained": teacher(6, "second", "resnet8"), "frozen_engine": "eager"}
    second |= {"mean": [0.4] * 3, "std": [0.2] * 3, "input_size": 40}
    content["Arch"]["models"].insert(0, {"Second": second})
    content["Arch"]["freeze_params_list"] = [True, True, False]
    pairs = [["Student", "Teacher"], ["Student", "Second"]]
    content["Loss"]["Train"][0]["DistillationKLDivLoss"]["model_name_pairs"] = pairs
    check_equality(content, run, capsys)


def test_chain_with_a_part_that_trains_on_the_side_of_the_teacher(content, run, capsys):
    content["Loss"]["Train"] = [
        {"DistillationGTCELoss": {"model_names": ["Student"]}},
        {"AFDLoss": {"weight": 10.0, "model_name_pair": ["Student", "Teacher"]}},
    ]
    for entry in content["Arch"]["models"]:
        for name, node in entry.items():
            net = {**node, "return_patterns": ["blocks[1]", "blocks[2]"]}
            entry[name] = {
                "name": "AttentionModel",
                "freeze_params_list": [name == "Teacher", False],
                "models": [{"Net": net}, {"Transform": {"name": f"LinearTransform{name}", "qk_dim": 8}}],
            }
    del content["Arch"]["freeze_params_list"]
    check_equality(content, run, capsys)


def test_views_come_round_again(content, run, capsys):
    """Two views for four epochs: the same as epochs 1, 2, 1, 2, whoever answers."""
    content["TeacherStore"]["views"] = 2
    content["Global"]["epochs"] = 4
    filled = run(content, "filled")
    assert_same(filled, run(content, "read", "TeacherStore.fill=never"))
    content["TeacherStore"].pop("views")
    capsys.readouterr()
    assert_same(filled, run(content, "again"))  # the store says how many
    assert "has views for 2 epochs; later epochs use their images" in capsys.readouterr().out
    assert run(content, "more", "TeacherStore.views=3", code=2) is None
    assert "but the store" in capsys.readouterr().err


def test_half_precision_is_the_same_for_who_fills_and_who_reads(content, run, capsys):
    with_losses(content, "MGD")
    content["Loss"]["Train"].append({"DistillationKLDivLoss": dict(PAIRS)})
    for precision in ("float16", "bfloat16"):
        content["TeacherStore"] |= {"precision": precision, "features": precision}
        content["TeacherStore"]["path"] += precision
        filled = run(content, f"filled{precision}")
        assert_same(filled, run(content, f"read{precision}"))


def stop_after(steps, signum=15):
    """A hook that ends a run after some steps, as a signal does."""
    done = []

    class Stop(Hook):
        def after_step(self, run, batch):
            done.append(batch)
            if len(done) == steps:
                raise StopRequested(signum)

    return Stop()


@pytest.mark.parametrize("steps", slow_unless(lambda n: n == 4, [1, 4]))
@pytest.mark.parametrize("filled", slow_unless(lambda value: not value, [False, True]))
def test_interrupted_run_resumes_exactly(content, run, write_recipe, tmp_path, steps, filled):
    expected = run(live(content), "live")
    if filled:
        run(content, "before")
    parts = load_config(write_recipe(content), [f"Global.output_dir={tmp_path}/parts"])
    with pytest.raises(SystemExit):
        Engine(parts, "train").train(hooks=[stop_after(steps)])
    assert_same(expected, run(content, "parts", "Global.checkpoints=auto"))
    assert_same(expected, run(content, "read", "TeacherStore.fill=never"))  # nothing is missing


def test_killed_run_leaves_whole_shards_and_the_rest_is_filled(content, run, tmp_path):
    expected = run(content, "filled")
    store = tmp_path / "store"
    shards = sorted(store.glob("view-*.json"))
    assert len(shards) == 2
    shards[0].unlink()  # as if it was killed before the shard was complete
    assert run(content, "never", "TeacherStore.fill=never", code=2) is None
    assert_same(expected, run(content, "again"))
    assert_same(expected, run(content, "read", "TeacherStore.fill=never"))
    assert sorted(store.glob("view-*.json")) == shards


def test_teacher_answers_only_for_what_is_missing(content, run, tmp_path, monkeypatch):
    run(content, "filled")
    sorted((tmp_path / "store").glob("view-*.json"))[1].unlink()
    asked = []
    own = answer_module.Answer.__call__

    def ask(self, x):
        if self.title == "Teacher":
            asked.append(x.shape[0])
        return own(self, x)

    monkeypatch.setattr(answer_module.Answer, "__call__", ask)
    run(content, "again", "Global.check_teacher=false", "Global.eval_agreement=false")
    assert sum(asked) == 12  # the second of two epochs


@pytest.mark.parametrize("ema", slow_unless(bool, [False, True]))
def test_evaluations_do_not_need_the_teacher(content, run, capsys, ema):
    content["Global"]["eval_during_train"] = True
    if ema:
        content["EMA"] = {"decay": 0.5}
    check_equality(content, run, capsys)


def test_evaluations_that_name_the_teacher_get_it(content, run, tmp_path, capsys):
    content["Global"]["eval_during_train"] = True
    content["Metric"]["Eval"].append({"DistillationTopkAcc": {"model_key": "Teacher", "topk": 1}})
    content["Metric"]["Eval"][0]["DistillationTopkAcc"]["topk"] = 2
    run(content, "filled")
    capsys.readouterr()
    run(content, "read")
    assert "built for evaluations" in capsys.readouterr().out


def test_store_without_the_file_of_the_teacher(content, run, tmp_path, capsys):
    """The teacher may be on another machine; a loss of logits does not need it."""
    filled = run(content, "filled")
    (tmp_path / "teacher.pdparams").unlink()
    capsys.readouterr()
    assert_same(filled, run(content, "read"))
    assert "weights of Teacher are not here" in capsys.readouterr().out


# ---------------------------------------------------------------- refusals


def refused(run, content, name, capsys):
    capsys.readouterr()
    assert run(content, name, code=2) is None
    return capsys.readouterr().err


def test_store_of_something_else_is_refused_with_the_difference(
    content, run, teacher, image_folder, tmp_path, capsys
):
    run(content, "filled")
    before = sorted(path.name for path in (tmp_path / "store").iterdir())

    def changed(change):
        other = copy.deepcopy(content)
        change(other)
        text = refused(run, other, "other", capsys)
        assert not (tmp_path / "other").exists()  # before the first step, and before anything was written
        return text

    other = teacher(7, "other")
    text = changed(lambda c: c["Arch"]["models"][0]["Teacher"].update(pretrained=other))
    assert "networks.Teacher.weights" in text
    assert "another file" in text
    text = changed(lambda c: c["DataLoader"]["Train"]["dataset"]["transform_ops"].pop(1))
    assert "transforms.Train.transform_ops" in text
    text = changed(
        lambda c: c["DataLoader"]["Train"]["dataset"]["transform_ops"][1]["RandFlipImage"].update(flip_code=0)
    )
    assert "transforms.Train.transform_ops.1.RandFlipImage.flip_code: 0 (int), in the store 1 (int)" in text
    text = changed(lambda c: c["Global"].update(seed=4))
    assert "seed: 4 (int), in the store 3 (int)" in text
    text = changed(lambda c: c["TeacherStore"].update(precision="float16"))
    assert "precision: 'float16'" in text
    assert "in the store 'float32'" in text
    text = changed(lambda c: c["Arch"]["models"][0]["Teacher"].update(return_stages=[1]))
    assert "networks.Teacher.options.return_stages" in text
    text = changed(lambda c: c["DataLoader"]["Train"]["sampler"].update(batch_size=5, drop_last=True))
    assert "samplers.Train.drop_last" in text
    lines = (image_folder / "train_list.txt").read_text().splitlines(keepends=True)
    (image_folder / "other_list.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    text = changed(
        lambda c: c["DataLoader"]["Train"]["dataset"].update(
            cls_label_path=str(image_folder / "other_list.txt")
        )
    )
    assert "lists.Train.digest" in text
    first = sorted(image_folder.glob("*.png"))
    shutil.copy(first[1], first[0])
    assert "image of sample 0 changed" in refused(run, content, "other", capsys)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == before


def test_damaged_store_is_refused(content, run, tmp_path, capsys):
    filled = run(content, "filled")
    shard = sorted((tmp_path / "store").glob("*.npy"))[0]
    whole = shard.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 4
    shard.write_bytes(flipped)
    assert "is damaged" in refused(run, content, "other", capsys)
    shard.write_bytes(whole[:-8])
    assert "is damaged" in refused(run, content, "other", capsys)
    shard.unlink()
    text = refused(run, content, "other", capsys)
    assert "is missing" in text
    assert "view 1, positions 0 to 11" in text
    assert not (tmp_path / "other").exists()
    shard.write_bytes(whole)
    manifest = tmp_path / "store/manifest.json"
    text = manifest.read_text()
    manifest.write_text(text[:-40])
    assert "damaged" in refused(run, content, "other", capsys)
    manifest.write_text(text)
    assert_same(filled, run(content, "read"))


def test_store_that_is_not_there_is_not_waited_for(content, run, capsys):
    content["TeacherStore"]["fill"] = "never"
    assert "there is no store" in refused(run, content, "other", capsys)


def test_too_small_disk_is_refused_before_the_first_step(content, run, tmp_path, monkeypatch, capsys):
    from ppcls.teacher import stored

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda path: usage._replace(free=100))
    assert "the store needs 504 B more" in refused(run, content, "other", capsys)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", slow_unless(lambda name: name == "*.npy", ["manifest.json", "*.npy"]))
def test_a_disk_that_becomes_full_ends_the_run_as_with_a_checkpoint(
    content, run, tmp_path, monkeypatch, capsys, name
):
    """With exit code 1, after which --max-restart starts it again; not as a mistake of the user."""

    def full(path, writer, **options):
        if path.match(name):
            raise WeightsError(f"cannot write {path}: No space left on device")
        return write_atomic(path, writer, **options)

    (tmp_path / "store").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_atomic", full)
        run(content, "filled", code=1)
    error = capsys.readouterr().err
    assert re.search(
        r"ppcls: cannot write .*/store/.*: No space left on device\. The next part of the store needs "
        r"0\.0 MB, .* MB are free there\. .* are intact\. Free some space in .*/store, .* --resume auto$",
        error.strip(),
    )
    assert_same(run(live(content), "live"), run(content, "filled", "Global.checkpoints=auto"))


@pytest.mark.parametrize(
    ("place", "reason"),
    [("a file", "Not a directory"), ("a file/x", "Not a directory"), ("a" * 300, "too long")],
)
def test_folder_that_cannot_be_written_is_refused_before_the_first_step(
    content, run, tmp_path, capsys, place, reason
):
    (tmp_path / "a file").write_text("")
    content["TeacherStore"]["path"] = str(tmp_path / place)
    text = refused(run, content, "other", capsys)
    assert "TeacherStore.path: cannot write to" in text
    assert reason in text
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"TeacherStore": {"path": None}}, "TeacherStore.path"),
        ({"Global": {"seed": None}}, "Global.seed"),
        ({"Arch": {"frozen_mode": "train"}}, "frozen_mode"),
        ({"Arch": {"freeze_params_list": [False, False]}}, "nothing to store"),
        ({"DataLoader": {"Train": {"dataset": {"on_error": "skip"}}}}, "on_error"),
    ],
)
def test_what_cannot_be_stored_is_refused(content, run, capsys, change, message):
    def merge(into, values):
        for key, value in values.items():
            into[key] = merge(into.get(key, {}), value) if isinstance(value, dict) else value
        return into

    merge(content, change)
    if "freeze_params_list" in change.get("Arch", {}):
        content["Loss"]["Train"].append({"DistillationGTCELoss": {"model_names": ["Student", "Teacher"]}})
    assert message in refused(run, content, "other", capsys)


def test_teacher_of_random_weights_is_refused(content, run, capsys):
    content["Arch"]["models"][0]["Teacher"].pop("pretrained")
    assert "outputs of random weights" in refused(run, content, "other", capsys)


def test_shards_are_read_with_numpy_alone(content, run, tmp_path):
    """As docs/teacher_store.md says."""
    run(content, "filled")
    store = tmp_path / "store"
    described = json.loads(sorted(store.glob("view-*.json"))[0].read_text())
    records = np.load(store / described["file"], mmap_mode="r")
    assert described["runs"] == [[0, 12]]
    assert sorted(records["index"].tolist()) == list(range(12))
    assert records["Teacher:logits"].shape == (12, 4)
    assert records["Teacher:logits"].dtype == np.dtype("<f4")


# ---------------------------------------------------------------- some of the classes


@pytest.mark.parametrize("kept", slow_unless(lambda kept: kept == "topk", ["topk", "sample"]))
def test_kept_classes_are_the_same_for_who_fills_and_who_reads(content, run, kept):
    content["TeacherStore"] |= {"logits": kept, "k": 2, "precision": "float16"}
    content["Loss"]["Train"][0]["DistillationKLDivLoss"]["temperature"] = 1.0
    filled = run(content, "filled")
    assert_same(filled, run(content, "read", "TeacherStore.fill=never"))
    others = weights_differ(filled, run(live(content), "live"))
    assert others  # it is not the whole distribution


def weights_differ(first, second):
    return any((first[name] != second[name]).any() for name in first)


@pytest.mark.parametrize(
    ("kept", "name", "options", "message"),
    [
        ("topk", "DistillationDKDLoss", {}, "needs the logits of all classes"),
        ("sample", "DistillationSKDLoss", {}, "needs the logits of all classes"),
        ("sample", "DistillationHardLoss", {}, "needs the logits of all classes"),
        ("sample", "DistillationKLDivLoss", {"temperature": 4.0}, "serve temperature 1 alone"),
        ("sample", "DistillationKLDivLoss", {}, "serve temperature 1 alone"),
        ("topk", "DistillationKLDivLoss", {"temperature": 1.0, "standardize": True}, "standardize"),
    ],
)
def test_losses_that_kept_classes_do_not_serve_are_refused(
    content, run, capsys, kept, name, options, message
):
    content["TeacherStore"] |= {"logits": kept, "k": 2}
    content["Loss"]["Train"] = [{name: {**PAIRS, **options}}]
    assert message in refused(run, content, "other", capsys)


def test_temperature_with_the_most_probable_classes_is_called_approximate(content, run, capsys):
    content["TeacherStore"] |= {"logits": "topk", "k": 2}
    run(content, "filled")
    assert "approximate" in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "message"), [({"logits": "topk"}, "missing"), ({"k": 2}, "all logits")])
def test_number_of_classes_goes_with_what_is_kept(content, run, capsys, settings, message):
    content["TeacherStore"] |= settings
    text = refused(run, content, "other", capsys)
    assert "TeacherStore.k" in text
    assert message in text


# ---------------------------------------------------------------- where weights come from


def test_weights_of_a_teacher_from_elsewhere_are_refused(content, run, tmp_path, capsys):
    """Global.pretrained_model would replace those of `pretrained` without a trace in the store."""
    whole = {
        f"Teacher.{name}": value for name, value in create_model("resnet14", class_num=4).state_dict().items()
    }
    paddle.save(whole, str(tmp_path / "whole.pdparams"))
    content["Global"]["pretrained_model"] = str(tmp_path / "whole.pdparams")
    for checkpoints in (None, "auto"):
        content["Global"]["checkpoints"] = checkpoints
        assert "has weights of Teacher" in refused(run, content, "other", capsys)


def test_file_of_the_teacher_may_move(content, run, tmp_path):
    filled = run(content, "filled")
    moved = (tmp_path / "teacher.pdparams").rename(tmp_path / "moved.pdparams")
    content["Arch"]["models"][0]["Teacher"]["pretrained"] = str(moved)
    assert_same(filled, run(content, "read", "TeacherStore.fill=never"))


@pytest.mark.parametrize("where", ["Arch", "Teacher"])
def test_precision_of_the_teacher_is_part_of_the_store(content, run, where, capsys):
    run(content, "filled")
    node = content["Arch"] if where == "Arch" else content["Arch"]["models"][0]["Teacher"]
    node["frozen_precision"] = "bfloat16"
    text = refused(run, content, "other", capsys)
    assert "networks.Teacher.frozen_precision: 'bfloat16'" in text


def test_differences_tell_zero_from_nothing():
    from ppcls.engine.start.store_contents import _differences

    assert list(_differences({"a": 0}, {}, ""))
    assert list(_differences({"a": False}, {"a": None}, ""))
    assert not list(_differences({"a": None, "b": []}, {}, ""))
