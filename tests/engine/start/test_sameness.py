"""What processes compare before they start together; two real processes are in tests/dist."""

import copy
import re

import paddle
import pytest

from ppcls import distributed
from ppcls.config import load_config
from ppcls.data import Fingerprint
from ppcls.engine.start import sameness
from ppcls.errors import ConfigError


@pytest.fixture
def config(recipe, write_recipe):
    return load_config(write_recipe(recipe))


def notes_of(*configs):
    return [sameness.describe_process(config) for config in configs]


def change(config, path, value):
    """Return a copy of `config` with another value at `path`; a value of ``del`` takes the key away."""
    changed = copy.deepcopy(config)
    *above, last = path.split(".")
    node = changed
    for key in above:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if value == "del":
        del node[last]
    else:
        node[last] = value
    return changed


def test_the_start_compares(config, monkeypatch):
    other = change(config, "Global.seed", 9)
    monkeypatch.setattr(distributed, "start", lambda note, check: check([note, *notes_of(other)]))
    with pytest.raises(ConfigError, match=r"Global\.seed: 3 in process 0, 9 in process 1"):
        sameness.start_alike(config)


@pytest.mark.parametrize(
    ("path", "value", "shown"),
    [
        ("Optimizer.lr.learning_rate", 0.1, "0.05 in process 0, 0.1 in process 1"),
        ("Global.seed", 4, "3 in process 0, 4 in process 1"),
        ("Global.seed", None, "3 in process 0, null in process 1"),
        ("Global.epochs", 3, "2 in process 0, 3 in process 1"),
        ("Global.save_steps", 3, "null in process 0, 3 in process 1"),
        ("DataLoader.Train.sampler.batch_size", 9, "5 in process 0, 9 in process 1"),
        ("DataLoader.Train.sampler.shuffle", "del", "in process 0, not set in process 1"),
        ("Arch.pretrained", "a/file", 'not set in process 0, "a/file" in process 1'),
        ("Global.pretrained_model", "a/file", 'null in process 0, "a/file" in process 1'),
        ("Loss.Train", [], r"\[\{.*\}\] in process 0, \[\] in process 1"),
        (
            "Metric.Eval.0.TopkAcc.topk",
            [1, 3],
            "Metric.Eval.0.TopkAcc.topk.1: 2 in process 0, 3 in process 1",
        ),
        ("Arch.class_num", 5, "4 in process 0, 5 in process 1"),
        ("Optimizer.momentum", 0.8, "0.9 in process 0, 0.8 in process 1"),
    ],
)
def test_a_difference_of_recipes_is_named(config, path, value, shown):
    with pytest.raises(ConfigError, match=shown) as caught:
        sameness.require_alike(notes_of(config, change(config, path, value)))
    assert path in str(caught.value)
    assert str(caught.value).count(" in process 0, ") == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("Global.output_dir", "/other"),
        ("Global.device", "gpu:1"),
        ("Global.log_ranks", [1]),
        ("Global.print_batch_step", 77),
        ("DataLoader.Train.loader.num_workers", 3),
        ("DataLoader.Train.dataset.image_root", "/other"),
        ("DataLoader.Eval.dataset.cls_label_path", "/other/val.txt"),
        ("Infer.infer_imgs", "/other"),
    ],
)
def test_machines_may_differ_in_what_does_not_matter(config, path, value):
    sameness.require_alike(notes_of(config, change(config, path, value)))


def test_checkpoints_lie_anywhere_but_all_or_none_search_for_one(config):
    some = [change(config, "Global.checkpoints", value) for value in ("/a/latest", "/b/latest", "auto")]
    sameness.require_alike(notes_of(some[0], some[1]))
    for pair in ((some[0], some[2]), (some[2], config), (config, some[0])):
        with pytest.raises(ConfigError, match=r"Global\.checkpoints"):
            sameness.require_alike(notes_of(*pair))


@pytest.mark.parametrize("name", ["ppcls", "paddle", "numpy", "device"])
def test_a_difference_of_versions_is_named(config, name):
    notes = notes_of(config, config, config)
    notes[2]["versions"][name] = "9.9"
    own = re.escape(notes[0]["versions"][name])
    with pytest.raises(ConfigError, match=rf"\n  {name}: {own} in process 0, 9\.9 in process 2\n"):
        sameness.require_alike(notes)


def test_the_version_knows_changed_source(config, tmp_path, monkeypatch):
    note = sameness.describe_process(config)
    assert note == sameness.describe_process(config)
    (tmp_path / "a.py").write_text("x")
    monkeypatch.setattr(sameness.ppcls, "__file__", str(tmp_path / "__init__.py"))
    sameness._code.cache_clear()
    first = sameness.describe_process(config)["versions"]["ppcls"]
    (tmp_path / "a.py").write_text("y")
    sameness._code.cache_clear()
    assert (
        len({note["versions"]["ppcls"], first, sameness.describe_process(config)["versions"]["ppcls"]}) == 3
    )
    sameness._code.cache_clear()


def test_equal_differences_are_one_line_and_many_are_cut_short(config):
    other = change(config, "Global.seed", 9)
    with pytest.raises(ConfigError, match=r"Global\.seed: 3 in process 0, 9 in process 1, 3\n") as caught:
        sameness.require_alike(notes_of(config, other, config, other))
    assert str(caught.value).count("\n") == 2
    config["Arch"] |= {f"key{n}": n for n in range(25)}
    with pytest.raises(ConfigError, match="and 5 more") as caught:
        sameness.require_alike(
            notes_of(
                config,
                {**config, "Arch": dict.fromkeys(config["Arch"], "x")}
                | {"Arch": {k: ("x" if k.startswith("key") else v) for k, v in config["Arch"].items()}},
            )
        )
    assert str(caught.value).count(" in process 0, ") == 20
    sameness.require_alike(notes_of(config))


@pytest.fixture
def two(monkeypatch):
    """Return a function that lets this process be one of two, the other of which says `theirs`."""

    def other_says(theirs):
        monkeypatch.setattr(distributed, "world_size", lambda: 2)
        monkeypatch.setattr(distributed, "wait_for_all", lambda: None)
        monkeypatch.setattr(distributed, "gather", lambda mine: [mine, theirs])

    return other_says


def test_lists_are_compared_by_what_they_say(two):
    mine = {"DataLoader.Train.dataset": Fingerprint("/a/list.txt", 12, "00ff")}
    sameness.require_same_lists({"alone": mine["DataLoader.Train.dataset"]})
    two({"DataLoader.Train.dataset": Fingerprint("/b/copy.txt", 12, "00ff").as_dict()})
    sameness.require_same_lists(mine)
    two({"DataLoader.Train.dataset": Fingerprint("/b/list.txt", 11, "11ff").as_dict()})
    message = r"\n  DataLoader\.Train\.dataset: 12 images \(/a/list.txt\) in process 0, "
    message += r"11 \(/b/list.txt\) in process 1\n"
    with pytest.raises(ConfigError, match=message):
        sameness.require_same_lists(mine)
    two({"DataLoader.Train.dataset": Fingerprint("/b/list.txt", 12, "11ff").as_dict()})
    with pytest.raises(ConfigError, match="12 with other names, labels or another order"):
        sameness.require_same_lists(mine)


def test_weights_are_compared_whole(monkeypatch):
    """All tensors count, with their names; batches are not needed."""
    seen = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "wait_for_all", lambda: None)
    monkeypatch.setattr(distributed, "gather", lambda mine: seen.append(mine) or [mine, seen[0]])
    layer = paddle.nn.BatchNorm2D(3)
    sameness.require_same_weights(layer)
    sameness.require_same_weights(layer)
    for tensor in layer.state_dict().values():
        old = tensor.clone()
        tensor.set_value(old + paddle.to_tensor([0.0, 0.0, 1e-6]))
        with pytest.raises(ConfigError, match="the weights of process 1 differ from those of process 0"):
            sameness.require_same_weights(layer)
        tensor.set_value(old)
    sameness.require_same_weights(layer)
    monkeypatch.setattr(distributed, "world_size", lambda: 1)
    count = len(seen)
    sameness.require_same_weights(paddle.nn.Linear(2, 2))
    assert len(seen) == count
