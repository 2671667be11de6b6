"""A store of teacher outputs with two processes: each stores and reads its part of every batch."""

import copy
import json

import numpy as np
import paddle
import pytest
from launching import WORKER, together
from support import KL, distilled, tiny_recipe

from ppcls.arch import create_model
from ppcls.weights import read_params

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_two_processes_fill_and_read_a_store(image_folder, tmp_path):
    paddle.seed(5)
    paddle.save(create_model("resnet14", class_num=4).state_dict(), str(tmp_path / "teacher.pdparams"))
    paths = []
    for name in ("live", "filled", "read"):
        recipe = distilled(tiny_recipe(image_folder, tmp_path / name), **copy.deepcopy(KL))
        recipe["Global"]["eval_during_train"] = False
        node = recipe["Arch"]["models"][0]["Teacher"]
        node |= {"pretrained": str(tmp_path / "teacher.pdparams"), "frozen_engine": "eager"}
        train = recipe["DataLoader"]["Train"]
        train["sampler"]["batch_size"] = 4  # the second and last step has two images of each process
        train["dataset"]["batch_transform_ops"] = [{"MixupOperator": {"alpha": 0.8}}]
        recipe["Metric"].pop("Train")
        if name != "live":
            recipe["TeacherStore"] = {"path": str(tmp_path / "store"), "precision": "float32"}
        if name == "read":
            recipe["TeacherStore"]["fill"] = "never"
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(recipe))
    done = together(tmp_path, [WORKER, *paths])
    assert done.returncode == 0, done.stdout + done.stderr
    found = [
        read_params(tmp_path / name / "DistillationModel/latest.pdparams")
        for name in ("live", "filled", "read")
    ]
    for name, value in found[0].items():
        for other in found[1:]:
            np.testing.assert_array_equal(np.asarray(other[name]), np.asarray(value), err_msg=name)
    shards = [json.loads(path.read_text()) for path in sorted((tmp_path / "store").glob("view-*.json"))]
    assert [shard["runs"] for shard in shards] == [[[0, 4], [8, 2]], [[4, 4], [10, 2]]] * 2
