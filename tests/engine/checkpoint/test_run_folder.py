"""The folder of a run: when an earlier run is renamed, what then follows it, and lists that changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from support import slow_unless, train, tree

import ppcls
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.engine.checkpoint.lock import lock_path
from ppcls.engine.checkpoint.resume import find_checkpoint
from ppcls.engine.checkpoint.run_folder import follow_earlier_run, following
from ppcls.errors import ConfigError
from ppcls.run_states import encode_states, read_states
from ppcls.weights import read_params, write_params

# ---------------------------------------------------------------- paths into an earlier run


def test_weights_of_the_run_that_is_renamed_are_followed(home):
    """The teacher lies in the output folder of the distillation itself."""
    folder = home / "keep/DistillationModel"
    net = ppcls.create_model("resnet14", class_num=4)
    write_params(folder / "teacher.pdparams", net.state_dict())
    teacher = f"Arch.models.0.Teacher.pretrained={folder}/teacher"
    infer = f"Infer.infer_imgs={folder}/teacher.pdparams"
    assert train(home / "both.yaml", teacher, infer, "Global.epochs=2", "Global.save_interval=1") == 0
    earlier = home / "keep/DistillationModel.earlier-1"
    recorded = yaml.safe_load((folder / "config.yaml").read_text())
    assert recorded["Arch"]["models"][0]["Teacher"]["pretrained"] == f"{earlier}/teacher"
    assert recorded["Infer"]["infer_imgs"] == f"{earlier}/teacher.pdparams"
    assert recorded["Global"]["output_dir"] == str(home / "keep")
    whole = shutil.copytree(folder, home / "whole")

    # by now another file has this name: a resume reads the one that the run began with
    write_params(folder / "teacher.pdparams", ppcls.create_model("resnet14", class_num=4).state_dict())
    latest = [folder / f"latest{suffix}" for suffix in (".pdparams", ".pdopt", ".pdstates")]
    for file in latest:
        shutil.copy(folder / f"epoch_1{file.suffix}", file)
    before = (folder / "train.log").read_text()
    assert train(home / "both.yaml", teacher, infer, "Global.epochs=2", "Global.checkpoints=auto") == 0
    said = (folder / "train.log").read_text()[len(before) :]
    assert "Arch.models.0.Teacher.pretrained: " in said
    assert "was renamed when this run began" in said
    assert "continues with a changed config" not in said
    assert not list(folder.glob("config.until_step_*"))
    same = [read_params(place / "latest.pdparams") for place in (whole, folder)]
    for name, value in same[0].items():
        np.testing.assert_array_equal(same[1][name], value, err_msg=name)
    assert not (home / "keep/DistillationModel.earlier-2").exists()


def test_only_what_lies_in_the_folder_is_followed(tmp_path, monkeypatch):
    folder = tmp_path / "out/net"
    (folder / "sub").mkdir(parents=True)
    for name in ("best_model.pdparams", "sub/list.txt"):
        (folder / name).write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    config = {
        "Global": {"output_dir": "out/net/sub", "save_inference_dir": "out/net/sub", "n": 3},
        "Arch": {"name": "net", "pretrained": "out/net/best_model", "list": ["./out/net/sub/list.txt", None]},
        "absolute": f"{folder}/best_model.pdparams",
        "linked": "link/net/best_model",
        "missing": "out/net/other",
        "beside": "out/network/best_model",
        "itself": "out/net",
    }
    found = following(config, Path("out/net"), Path("out/net.earlier-1"))
    assert found == {
        **config,
        "Arch": {
            "name": "net",
            "pretrained": "out/net.earlier-1/best_model",
            "list": ["out/net.earlier-1/sub/list.txt", None],
        },
        "absolute": "out/net.earlier-1/best_model.pdparams",
        "linked": "out/net.earlier-1/best_model",
    }
    assert config["Arch"]["pretrained"] == "out/net/best_model"


def test_only_what_the_run_began_with_is_followed_by_a_resume(tmp_path):
    folder, earlier = tmp_path / "out/net", tmp_path / "out/net.earlier-2"
    for place in (folder, earlier):
        place.mkdir(parents=True)
    recorded = {
        "same": f"{earlier}/a", "other": f"{earlier}/b", "elsewhere": f"{tmp_path}/a", "own": f"{folder}/a",
        "gone": f"{tmp_path}/out/net.earlier-7/a", "list": [{"x": f"{earlier}/sub/a.pdparams"}],
    }  # fmt: skip
    config = {
        "same": f"{folder}/a", "other": f"{folder}/c", "elsewhere": f"{folder}/a", "own": f"{folder}/a",
        "gone": f"{folder}/a", "list": [{"x": f"{folder}/sub/a.pdparams", "n": 3}], "new": f"{folder}/a",
        "outside": "a",
    }  # fmt: skip
    expected = {**config, "same": f"{earlier}/a", "list": [{"x": f"{earlier}/sub/a.pdparams", "n": 3}]}
    follow_earlier_run(config, recorded, folder)
    assert config == expected


# ---------------------------------------------------------------- which runs are renamed


@pytest.mark.parametrize("kind", ["new", "in place", "in place by another path", "of another folder"])
def test_when_an_earlier_run_is_renamed(home, kind):
    folder, earlier = home / "keep/resnet8", home / "keep/resnet8.earlier-1"
    lock_path(folder).write_text(json.dumps({"pid": 0, "host": "another", "since": "long ago"}))
    (home / "link").symlink_to(home / "keep")
    shutil.copytree(folder, home / "copy")
    places = {
        "in place": folder,
        "in place by another path": home / "link/resnet8",
        "of another folder": home / "copy",
    }
    options = [f"Global.checkpoints={places[kind]}/latest"] if kind in places else []
    assert train(home / "plain.yaml", "Global.epochs=2", *options) == 0
    assert earlier.exists() == (kind in ("new", "of another folder"))
    assert not [*folder.glob("*.new"), *earlier.glob("*.new")]
    assert json.loads(lock_path(folder).read_text())["pid"] == os.getpid()
    states = [path.name for path in folder.glob("*.pdstates")]
    assert sorted(states) == ["best_model.pdstates", "epoch_2.pdstates", "latest.pdstates"][: len(states)]
    kept = [path for path in home.rglob("config.until_step_3.yaml")]
    assert [path.parent.name for path in kept] == (["resnet8"] if "in place" in kind else [])


def test_a_folder_without_checkpoints_is_used_as_it_is(home):
    folder = home / "new/resnet8"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "metrics.jsonl").write_text('{"kind": "train", "epoch": 1, "step": 0}\n')
    for place in (home / "new", folder):
        (place / ".resnet8.99999999.tmp").mkdir()  # of a start that was killed
    assert train(home / "plain.yaml", f"Global.output_dir={home}/new") == 0
    assert (folder / "notes.txt").read_text() == "mine"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert "loss" in rows[0]
    assert sorted(path.name for path in (home / "new").iterdir()) == [".resnet8.lock", "resnet8"]
    assert not list(folder.glob(".*"))


def test_a_folder_that_cannot_be_written_is_named_before_any_work(home, capsys):
    options = [f"Global.output_dir={home}/plain.yaml/x", "DataLoader.Train.dataset.cls_label_path=nowhere"]
    assert train(home / "plain.yaml", *options) == 2
    assert f"cannot write to {home}/plain.yaml/x/resnet8: Not a directory" in capsys.readouterr().err


def test_rows_of_a_run_that_is_resumed_stay(home):
    rows = (home / "keep/resnet8/metrics.jsonl").read_text()
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    after = (home / "keep/resnet8/metrics.jsonl").read_text()
    assert after.startswith(rows)
    assert len(after) > len(rows)


def test_a_finished_run_is_looked_at_and_left_alone(home):
    before = tree(home)
    assert train(home / "plain.yaml", "Global.checkpoints=auto") == 0
    assert find_checkpoint("auto", home / "keep/resnet8").progress.finished
    assert tree(home) == before


def test_refusals_name_the_data_in_the_folder(home):
    recipe = yaml.safe_load((home / "plain.yaml").read_text())
    shutil.copytree(home / "images", home / "keep/resnet8/images")
    recipe["DataLoader"]["Eval"]["dataset"]["image_root"] = f"{home}/keep/resnet8/images"
    (home / "plain.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="DataLoader.Eval.dataset.image_root: .* would be renamed"):
        Engine(load_config(home / "plain.yaml")).train()
    resume = ["Global.checkpoints=auto", "Global.epochs=2"]
    assert Engine(load_config(home / "plain.yaml", resume)).train()  # nothing is renamed


# ---------------------------------------------------------------- lists


LISTS = {
    "shorter": (lambda lines: lines[:9], "had 12 images, now it has 9"),
    "longer": (lambda lines: [*lines, lines[0]], "had 12 images, now it has 13"),
    "reordered": (lambda lines: lines[::-1], "has 12 images as before, but other names"),
    "relabelled": (lambda lines: [lines[0].replace(" 0", " 1"), *lines[1:]], "has 12 images as before, but"),
    "the same": (lambda lines: [f"\n{lines[0]}", *lines[1:]], None),
}


@pytest.mark.parametrize("name", slow_unless(lambda name: name not in ("longer", "reordered"), LISTS))
def test_a_list_that_changed_before_a_resume_is_named(home, capsys, name):
    change, text = LISTS[name]
    path = home / "images/train_list.txt"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    printed = capsys.readouterr().out
    said = f"DataLoader.Train.dataset: {path} changed since the checkpoint was written: it {text}"
    moved = f"DataLoader.Train.dataset: {path} (then "
    if text is None:
        assert "changed since the checkpoint" not in printed
    else:
        assert said in printed or (moved in printed and f"checkpoint was written: it {text}" in printed)
    assert "DataLoader.Eval.dataset: " not in printed
    states = json.loads((home / "keep/resnet8/latest.pdstates").read_text())
    assert states["lists"]["DataLoader.Train.dataset"]["count"] == len(path.read_text().split("\n")) - 1 - (
        text is None
    )
    capsys.readouterr()
    assert train(home / "plain.yaml", "Global.epochs=3", "Global.checkpoints=auto") == 0
    assert "changed since the checkpoint" not in capsys.readouterr().out  # said once


def test_a_checkpoint_that_knows_no_lists_resumes_as_before(home, capsys):
    path = home / "keep/resnet8/latest.pdstates"
    progress, files = read_states(path)
    assert progress.lists.keys() == {"DataLoader.Train.dataset", "DataLoader.Eval.dataset"}
    progress.lists = {}
    path.write_bytes(encode_states(progress, files))
    assert train(home / "plain.yaml", "Global.epochs=2", "Global.checkpoints=auto") == 0
    assert "changed since the checkpoint" not in capsys.readouterr().out
