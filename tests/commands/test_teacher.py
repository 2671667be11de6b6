"""``ppcls teacher store`` and ``ppcls teacher check``, as a user runs them."""

from __future__ import annotations

import copy
import os
import signal

import numpy as np
import paddle
import pytest
from support import KL, distilled, slow_unless, train

from ppcls.arch import create_model
from ppcls.cli import main
from ppcls.engine import teacher_outputs
from ppcls.teacher import stored
from ppcls.teacher.store import Store
from ppcls.weights import read_params


@pytest.fixture
def content(recipe, tmp_path):
    paddle.seed(5)
    paddle.save(create_model("resnet14", class_num=4).state_dict(), str(tmp_path / "teacher.pdparams"))
    content = distilled(recipe, **copy.deepcopy(KL))
    node = content["Arch"]["models"][0]["Teacher"]
    node |= {"pretrained": str(tmp_path / "teacher.pdparams"), "frozen_engine": "eager"}
    content["Global"] |= {"eval_during_train": False, "print_batch_step": 100}
    content["TeacherStore"] = {"path": str(tmp_path / "store"), "precision": "float32", "views": 2}
    return content


def weights(folder):
    return {name: np.asarray(v) for name, v in read_params(folder / "latest.pdparams").items()}


def store(path, *more):
    return main(["teacher", "store", "-c", str(path), *more])


def check(path, folder, *more):
    return main(["teacher", "check", str(folder), "-c", str(path), *more])


def test_training_from_a_filled_store_is_training_with_the_teacher(content, write_recipe, tmp_path, capsys):
    path = write_recipe(content)
    live = {key: value for key, value in content.items() if key != "TeacherStore"}
    assert train(write_recipe(live, "live.yaml"), f"Global.output_dir={tmp_path}/live") == 0
    assert store(path) == 0
    text = capsys.readouterr().out
    assert "2 views of 12 images, 20 B each; 504 B to come" in text
    assert "24 of 24 images" in text
    assert train(path, "TeacherStore.fill=never") == 0
    first, second = (weights(tmp_path / name / "DistillationModel") for name in ("live", "output"))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)
    capsys.readouterr()
    assert store(path) == 0
    text = capsys.readouterr().out
    assert "2 of 2 views are complete" in text
    assert "nothing is missing" in text
    assert "not built" not in text  # that is about training


def test_a_teacher_whose_classifier_stays_random_is_named(content, write_recipe, tmp_path, capsys):
    other = create_model("resnet14", class_num=7).state_dict()
    paddle.save(other, str(tmp_path / "teacher.pdparams"))
    assert store(write_recipe(content)) == 0
    assert "!!! Teacher is not trained here" in "".join(capsys.readouterr())


@pytest.mark.slow
def test_parts_together_are_the_whole(content, write_recipe, tmp_path):
    path = write_recipe(content)
    assert store(path) == 0
    for part in ("3/3", "1/3", "2/3"):
        assert store(path, "--shard", part, "-o", f"TeacherStore.path={tmp_path}/parts") == 0
    assert len(list((tmp_path / "parts").glob("view-*.json"))) == 4  # the second part is of both views
    for name in ("store", "parts"):
        assert (
            train(path, f"Global.output_dir={tmp_path}/{name}_run", f"TeacherStore.path={tmp_path}/{name}")
            == 0
        )
    first, second = (weights(tmp_path / f"{name}_run/DistillationModel") for name in ("store", "parts"))
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


MORTAL = """
import os, signal
from pathlib import Path
from ppcls.data import Transform
from ppcls.registry import TRANSFORMS

@TRANSFORMS.register()
class Mortal(Transform):
    def __call__(self, image, rng):
        folder = Path(__file__).parent
        if (folder / "store/manifest.json").exists():
            try:
                (folder / "died").touch(exist_ok=False)  # in one process alone
            except FileExistsError:
                return image
            os.kill(os.getpid(), signal.SIGKILL)
        return image
"""


@pytest.mark.slow
def test_several_processes_fill_a_store_and_one_is_killed(content, write_recipe, tmp_path, capsys):
    (tmp_path / "mortal.py").write_text(MORTAL)
    content["Global"]["plugins"] = [str(tmp_path / "mortal.py")]
    content["DataLoader"]["Train"]["dataset"]["transform_ops"].insert(1, {"Mortal": None})
    path = write_recipe(content)
    assert store(path, "--nproc", "2") == 1
    out, err = capsys.readouterr()
    assert out.count("2 views of 12 images, 20 B each; 504 B to come\n") == 1
    assert "2 processes compute them" in out
    assert "failed after 0 of 12 images: it was killed (signal 9)" in out
    assert out.count("12 of 12 images") == 1  # the other one continues
    assert "What was complete is stored; run the same command again" in err
    assert "Traceback" not in out + err
    assert store(path, "--nproc", "1", "--shard", "1/1") == 0
    out = capsys.readouterr().out
    assert "12 of 12 images" in out
    assert out.count("\n") < 8  # one line of progress, and nothing of a launcher
    assert store(path, "-o", f"TeacherStore.path={tmp_path}/alone") == 0
    assert main(["teacher", "check", str(tmp_path / "store")]) == 0
    first, second = (Store(tmp_path / name) for name in ("store", "alone"))
    for view in (1, 2):
        ones, others = first.read(view, 0, 12), second.read(view, 0, 12)
        for name in ones.dtype.names:  # of other processes: on AMD, their products may differ by rounding
            np.testing.assert_allclose(ones[name], others[name], rtol=1e-5, atol=1e-5)


def test_far_too_many_processes_are_refused(content, write_recipe, tmp_path, capsys):
    assert store(write_recipe(content), "--nproc", "1000") == 2
    assert "--nproc: 1000 processes on" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_shard_is_written_after_some_time_at_the_latest(content, write_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "SHARD_SECONDS", 0.0)
    assert store(write_recipe(content)) == 0
    assert [shard.runs.tolist() for shard in Store(tmp_path / "store").shards] == [
        [[0, 5]],
        [[5, 5]],
        [[10, 2]],
    ] * 2


def test_a_store_keeps_what_was_computed_before_sigterm(content, write_recipe, tmp_path, capsys, monkeypatch):
    path = write_recipe(content)
    own = teacher_outputs.Watcher.advance

    def advance(self, done):
        own(self, done)
        if done >= 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(teacher_outputs.Watcher, "advance", advance)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        store(path)
    assert ended.value.code == 143
    assert "ended by SIGTERM; what was computed is stored" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
    assert Store(tmp_path / "store").missing(1, 12) == [(10, 2)]


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "5000"])
def test_wrong_number_of_processes(count, capsys):
    with pytest.raises(SystemExit):
        main(["teacher", "store", "-c", "x.yaml", f"--nproc={count}"])
    assert "expected a number from 1 to 1024" in capsys.readouterr().err


def test_check_without_a_recipe_reads_all_files(content, write_recipe, tmp_path, capsys):
    assert store(write_recipe(content), "--shard", "1/2") == 0
    (tmp_path / "teacher.pdparams").unlink()
    capsys.readouterr()
    assert main(["teacher", "check", str(tmp_path / "store")]) == 0
    assert "1 shards, 1 of 2 views are complete" in capsys.readouterr().out
    shard = next((tmp_path / "store").glob("*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert main(["teacher", "check", str(tmp_path / "store")]) == 1
    assert f"shard {shard.name} (view 1, positions 0 to 11) is damaged" in capsys.readouterr().out
    assert main(["teacher", "check", str(tmp_path)]) == 2
    assert "there is no store in" in capsys.readouterr().err
    assert main(["teacher", "check", str(tmp_path / "store"), "-o", "Global.seed=1"]) == 2
    assert "-o changes a recipe, so it needs -c" in capsys.readouterr().err


def test_part_needs_room_for_itself_alone(content, write_recipe, capsys):
    path = write_recipe(content)
    assert store(path, "--shard", "1/2") == 0
    assert "252 B to come" in capsys.readouterr().out
    assert store(path, "--shard", "1/2") == 0
    assert "nothing is missing in part 1 of 2" in capsys.readouterr().out


def test_filling_continues_where_it_was_killed(content, write_recipe, tmp_path, capsys):
    path = write_recipe(content)
    assert store(path, "--shard", "1/4") == 0
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()}
    (tmp_path / "store/view-00001-000000000010-00000000.npy").write_bytes(b"half a shard")
    capsys.readouterr()
    assert store(path) == 0
    assert "19 of 19 images" in capsys.readouterr().out
    assert before == {name: (tmp_path / "store" / name).stat().st_mtime_ns for name in before}
    assert check(path, tmp_path / "store") == 0


@pytest.mark.parametrize(
    "precision", slow_unless(lambda name: name == "bfloat16", ["float32", "float16", "bfloat16"])
)
def test_check_asks_the_teacher_again(content, write_recipe, tmp_path, capsys, precision):
    content["TeacherStore"]["precision"] = precision
    path = write_recipe(content)
    assert store(path) == 0
    capsys.readouterr()
    assert check(path, tmp_path / "store") == 0
    assert f"Teacher:logits  {precision}  96 values  relative difference" in capsys.readouterr().out


@pytest.mark.parametrize(("kept", "values"), [("topk", 96), ("sample", 48)])
def test_check_of_kept_classes(content, write_recipe, tmp_path, capsys, kept, values):
    content["TeacherStore"] |= {"logits": kept, "k": 2}
    content["Loss"]["Train"][0]["DistillationKLDivLoss"]["temperature"] = 1.0
    path = write_recipe(content)
    assert store(path) == 0
    capsys.readouterr()
    assert check(path, tmp_path / "store") == 0
    assert f"Teacher:logits  float32  {values} values  relative difference 0.0e+00" in capsys.readouterr().out


def test_check_finds_other_values(content, write_recipe, tmp_path, capsys, monkeypatch):
    """Values of another network under a manifest that says otherwise."""
    from ppcls.teacher.columns import Columns

    own = Columns.encode

    def encode(self, *given):
        return {key: value * 1.01 for key, value in own(self, *given).items()}

    path = write_recipe(content)
    with monkeypatch.context() as patch:
        patch.setattr(Columns, "encode", encode)
        assert store(path) == 0
    capsys.readouterr()
    assert check(path, tmp_path / "store") == 1
    assert "NOT what the network gives" in capsys.readouterr().out


def test_check_refuses_a_store_of_something_else(content, write_recipe, tmp_path, capsys):
    path = write_recipe(content)
    assert check(path, tmp_path / "store") == 2
    assert "nothing is stored" in capsys.readouterr().err
    assert store(path) == 0
    assert check(path, tmp_path / "store", "-o", "Global.seed=8") == 2
    assert "seed: 8 (int), in the store 3 (int)" in capsys.readouterr().err


def test_recipe_without_a_store(content, write_recipe, capsys):
    del content["TeacherStore"]
    assert store(write_recipe(content)) == 2
    assert "TeacherStore" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/2", "1/2/3", "-1/2"])
def test_wrong_part(part, capsys):
    with pytest.raises(SystemExit):
        main(["teacher", "store", "-c", "x.yaml", f"--shard={part}"])
    assert "expected I/N" in capsys.readouterr().err
