"""Post-processing and image sizes against the rest of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppcls.config import load_config, plain
from ppcls.errors import ConfigError

Write = Callable[..., Path]
PLACE = "Infer.PostProcess"
OF_SEVERAL = "DistillationPostProcess"
THRESH = {"name": "ThreshOutput", "threshold": 0.5, "label_1": "car"}
TRAIN = "DataLoader.Train"
SIZES = {"name": "MultiScaleSampler", "scales": [32, 64], "first_bs": 4}


def mistakes(file: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    return str(caught.value).splitlines()[1:]


def two_classes(write: Write, *edits: Any) -> Path:
    places = ("Arch", "Arch.models.0.Teacher", "Arch.models.1.Student")
    classes = [("set", f"{place}.class_num", 2) for place in places]
    top = [("set", f"Metric.{part}.0.DistillationTopkAcc.topk", [1]) for part in ("Train", "Eval")]
    return write(*classes, *top, *edits)


def test_the_post_process_of_the_network_to_deploy_is_read_as_the_one_it_names(write_recipe: Write) -> None:
    node = {"name": OF_SEVERAL, "model_name": "Student", "key": None, "func": "Topk", "topk": 3}
    config = load_config(write_recipe(("set", PLACE, node)))
    assert config["Infer"]["PostProcess"] == {"name": "Topk", "topk": 3}
    config = load_config(write_recipe(("set", PLACE, {"name": OF_SEVERAL})))
    assert config["Infer"]["PostProcess"] == {"name": "Topk"}
    inner = {k: v for k, v in THRESH.items() if k != "name"}
    file = two_classes(write_recipe, ("set", PLACE, {"name": OF_SEVERAL, "func": "ThreshOutput", **inner}))
    assert load_config(file)["Infer"]["PostProcess"] == THRESH


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"name": OF_SEVERAL, "model_name": "Studnet"}, "no network 'Studnet'.*Did you mean: Student"),
        ({"name": OF_SEVERAL, "model_name": "Teacher"}, "set Arch.infer_model_name: Teacher"),
        ({"name": OF_SEVERAL, "func": "Topkk"}, "Did you mean: Topk"),
        ({"name": OF_SEVERAL, "func": "ThreshOutput"}, "needs the option 'threshold'"),
        ({"name": OF_SEVERAL, "func": 3}, "expected a string, got 3"),
        ({"name": OF_SEVERAL, "tokp": 3}, "Did you mean: topk"),
        ({"name": OF_SEVERAL, "key": "pool"}, "expected logits or null"),
        (THRESH, "two classes, but resnet8 has"),
        ({**THRESH, "threshold": 2}, "expected a probability"),
        ({**THRESH, "threshold": "high"}, "expected a number"),
        ({"name": "Topk", "topk": 0}, "at least 1"),
    ],
)
def test_mistakes_are_found_before_anything_is_built(node: Any, words: str, write_recipe: Write) -> None:
    found = mistakes(write_recipe(("set", PLACE, node)))
    assert len(found) == 1, found
    assert re.search(words, found[0]), found


def test_a_post_process_of_several_networks_needs_several(write_recipe: Write) -> None:
    file = write_recipe(
        ("set", "Arch", {"name": "resnet8", "class_num": 10}),
        ("set", "Loss", {"Train": [{"CELoss": None}], "Eval": [{"CELoss": None}]}),
        ("set", "Metric", {"Train": [{"TopkAcc": None}], "Eval": [{"TopkAcc": None}]}),
        ("set", PLACE, {"name": OF_SEVERAL}),
    )
    (found,) = mistakes(file)
    assert "is for several networks" in found


def test_names_of_classes_need_not_be_there_to_train(write_recipe: Write) -> None:
    load_config(write_recipe(("set", PLACE, {"name": "Topk", "class_id_map_file": "not/yet.txt"})))


@pytest.mark.parametrize("count", [-1, 0, True, "ten", 2.5, [2]])
def test_a_count_of_classes_that_cannot_be_is_reported_alone(
    count: Any, write_recipe: Write, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("0 cat\n1 dog\n")
    for node in ({"name": "Topk", "class_id_map_file": str(names)}, {"name": "Topk", "label_list": ["cat"]}):
        for found in mistakes(
            write_recipe(
                ("set", "Arch", {"name": "resnet8", "class_num": count}),
                ("set", "Loss", {"Train": [{"CELoss": None}], "Eval": [{"CELoss": None}]}),
                ("set", "Metric", {"Train": [{"TopkAcc": None}], "Eval": [{"TopkAcc": None}]}),
                ("set", PLACE, node),
            )
        ):
            assert found.strip().startswith("Arch"), found
            assert "class_num" in found


def test_a_sampler_of_several_sizes_needs_the_dataset(write_recipe: Write) -> None:
    (found,) = mistakes(write_recipe(("set", f"{TRAIN}.sampler", SIZES)))
    assert f"{TRAIN}.dataset.name" in found
    assert "use MultiScaleDataset" in found
    good = (("set", f"{TRAIN}.sampler", SIZES), ("set", f"{TRAIN}.dataset.name", "MultiScaleDataset"))
    config = load_config(write_recipe(*good))
    assert config["DataLoader"]["Train"]["sampler"] == SIZES
    part = {**plain(config["DataLoader"]["Train"]), "sampler": {"name": "BatchSampler", "batch_size": 4}}
    (found,) = mistakes(write_recipe(*good, ("set", "DataLoader.UnLabelTrain", part)))
    assert f"{TRAIN}.sampler" in found
    assert "UnLabelTrain" in found
    (found,) = mistakes(write_recipe(("set", "DataLoader.Eval.sampler", SIZES)))
    assert "evaluation counts every image once" in found
