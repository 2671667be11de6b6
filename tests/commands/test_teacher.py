"""``ppcls teacher store`` and ``ppcls teacher check``, as a user runs them."""

from __future__ import annotations

import copy

import numpy as np
import paddle
import pytest
from support import KL, distilled, train

from ppcls.arch import create_model
from ppcls.cli import main
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
    assert store(path) == 0
    assert "nothing is missing" in capsys.readouterr().out


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


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
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
