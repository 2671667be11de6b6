"""A start that fails in one of two processes changes nothing, and says why."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_recipe, train, tree

pytestmark = [pytest.mark.dist, pytest.mark.slow]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def start(image_folder, tmp_path):
    """Return a function that trains in two processes, with a folder for temporary files of its own."""
    recipe = tiny_recipe(image_folder, tmp_path / "runs/deep")
    recipe["Global"]["epochs"] = 1
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 3
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    (tmp_path / "tmp").mkdir()

    def run(*options):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA"))}
        environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
        command = [sys.executable, "-m", "ppcls", "train", "--nproc", "2", "-c", str(path)]
        command += [part for text in options for part in ("-o", text)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250)

    return run


def test_a_start_that_fails_in_one_process_changes_nothing(start, image_folder, tmp_path):
    in_order = "DataLoader.Train.sampler.shuffle=False"
    assert train(tmp_path / "recipe.json", in_order) == 0
    for number in (0, 1):
        log = tmp_path / f"runs/deep/log/workerlog.{number}"
        log.parent.mkdir(exist_ok=True)
        log.write_text("of an earlier run\n")

    image = image_folder / (image_folder / "train_list.txt").read_text().split("\n")[4].split()[0]
    image.write_bytes(b"no image")  # process 1 alone reads it in its first batch
    before = tree(tmp_path / "runs")
    done = start(in_order)
    assert done.returncode == 2
    last = done.stderr[done.stderr.rindex("ppcls: process ") :]
    assert f"process 1 of 2:\n  ppcls: {image} (sample 4)" in last
    assert tree(tmp_path / "runs") == before
    assert not list((tmp_path / "tmp").glob("ppcls-*"))
