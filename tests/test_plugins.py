"""Components of users, from files that a recipe names: each kind trains, and what is wrong is said well."""

import copy
import importlib
import pickle
import re
import sys

import paddle
import pytest
from paddle import nn
from support import distilled

from ppcls import plugins, registry
from ppcls.arch import build_model
from ppcls.cli import main
from ppcls.config import load_config
from ppcls.contracts import adopt, breaches
from ppcls.data.transforms import Transform
from ppcls.engine import Engine
from ppcls.errors import ConfigError
from ppcls.loss import Loss
from ppcls.metric.base import Metric
from ppcls.plugins import load_plugins
from ppcls.registry import BACKBONES

# Every class here is plain: no base class of ppcls, and no more than its contract asks for.
PLAIN = """
import dataclasses

import cv2
import numpy as np
import paddle
from paddle import nn
from ppcls.data import Draws
from ppcls.registry import (
    BACKBONES, BATCH_OPS, DATASETS, HOOKS, LOSSES, METRICS, OPTIMIZERS, POSTPROCESSES, SAMPLERS, SCHEDULES,
    TRANSFORMS,
)


@BACKBONES.register()
class PlainNet(nn.Layer):
    def __init__(self, class_num: int = 10, width: int = 4):
        super(PlainNet, self).__init__()
        self.conv = nn.Conv2D(3, width, 3)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(width, class_num)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean(axis=[2, 3]))


@BACKBONES.register()
def SequentialNet(class_num=10):
    return nn.Sequential(nn.Conv2D(3, 4, 3), nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(4, class_num))


@LOSSES.register()
class PlainLoss(nn.Layer):
    def forward(self, logits, label):
        return nn.functional.cross_entropy(logits, label)


@LOSSES.register()
def FactoryLoss(axis: int = -1):
    return nn.CrossEntropyLoss(axis=axis)


@LOSSES.register()
class PlainPairLoss(nn.Layer):
    is_pair_loss = True

    def forward(self, student, teacher):
        return (student - teacher).abs().mean()


@METRICS.register()
class PlainMetric:
    def __call__(self, outputs, label):
        return {"mean_logit": outputs.mean()}


@METRICS.register()
def FactoryMetric():
    def least(outputs, label):
        return {"least": float(outputs.min())}

    return least


@TRANSFORMS.register()
class PlainTransform:
    def __init__(self, gain: float = 0.9):
        self.gain = gain

    def __call__(self, image, rng):
        return (image * self.gain).astype(image.dtype)


@BATCH_OPS.register()
class PlainBatchOp:
    def __call__(self, image, label, rng):
        return image[:, :, :, ::-1], label


@SAMPLERS.register()
class PlainSampler:
    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def count(self, share):
        return share.length // self.batch_size

    def batches(self, share, epoch):
        order = np.arange(share.length)[::-1].copy()
        starts = range(0, self.count(share) * self.batch_size, self.batch_size)
        return [Draws(part, np.zeros_like(part)) for part in (order[s : s + self.batch_size] for s in starts)]


@DATASETS.register()
class PlainDataset:
    def __init__(self, size: int = 8):
        self.size = size

    def __len__(self):
        return self.size

    def path(self, index):
        return f"colour {index}"

    def label(self, index):
        return index % 4

    def read(self, index):
        return np.full((32, 32, 3), index, np.float32)


@POSTPROCESSES.register()
class PlainPostProcess:
    def __call__(self, probabilities, file_names):
        best = probabilities.argmax(axis=1)
        return [{"best": int(place), "file_name": name} for place, name in zip(best, file_names)]


@SCHEDULES.register()
class PlainSchedule:
    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate

    def build(self, epochs, steps_per_epoch):
        return paddle.optimizer.lr.ExponentialDecay(self.learning_rate, 0.9)


class Signs(paddle.optimizer.Optimizer):
    @paddle.no_grad()
    def step(self):
        for parameter in self._parameter_list:
            if parameter.grad is not None:
                parameter.set_value(parameter - self.get_lr() * parameter.grad.sign())


@OPTIMIZERS.register()
@dataclasses.dataclass
class PlainOptimizer:
    lr: dict

    def build(self, schedule, parameters):
        return Signs(schedule, [parameter for _, parameter in parameters])


@HOOKS.register()
class PlainHook:
    steps = 0

    def after_step(self, run, batch):
        PlainHook.steps += 1
"""


pytestmark = pytest.mark.usefixtures("forget_plugins")


@pytest.fixture
def with_plugin(recipe, write_recipe, tmp_path):
    """Return a function that writes a recipe which names the plug-in file `my_plugin.py` beside it."""

    def write(content=None, body=PLAIN, **settings):
        (tmp_path / "my_plugin.py").write_text(body)
        content = recipe if content is None else content
        content["Global"] |= {"plugins": ["./my_plugin.py"], "epochs": 1, **settings}
        return write_recipe(content)

    return write


def log_of(capsys) -> str:
    return capsys.readouterr().out


# ---------------------------------------------------------------- every kind, without our base classes


@pytest.mark.parametrize("loss", ["PlainLoss", "FactoryLoss"])
def test_a_loss(recipe, with_plugin, loss, capsys):
    recipe["Loss"]["Train"] = [{loss: {"weight": 0.5}}]
    Engine(load_config(with_plugin())).train()
    assert f"{loss}: " in log_of(capsys)


def test_a_pair_loss_is_named_in_the_log_by_its_class(recipe, with_plugin, capsys):
    pairs = {"model_name_pairs": [["Student", "Teacher"]]}
    content = distilled(recipe, DistillationPairLoss={"base_loss_name": "PlainPairLoss", **pairs})
    Engine(load_config(with_plugin(content))).train()
    assert "PlainPairLoss_0_Student_Teacher: " in log_of(capsys)


@pytest.mark.parametrize("option", ["dtype", "name_scope"])
def test_a_layer_without_options_of_its_own_has_none_of_paddles(recipe, with_plugin, option):
    pairs = {"model_name_pairs": [["Student", "Teacher"]], "base_loss_name": "PlainPairLoss"}
    for name, node in (("PlainLoss", {}), ("DistillationPairLoss", pairs)):
        content = distilled(recipe, **{name: {**node, option: "float32"}})
        with pytest.raises(ConfigError, match=f"{name} has no option '{option}'"):
            load_config(with_plugin(content))


@pytest.mark.parametrize("metric", ["PlainMetric", "FactoryMetric"])
def test_a_metric_without_a_network(recipe, with_plugin, metric):
    recipe["Metric"] = {"Train": [{metric: None}], "Eval": [{metric: None}]}
    found = Engine(load_config(with_plugin())).train()
    assert {"mean_logit", "least"} & found.keys()


def test_an_optimizer_and_a_schedule(recipe, with_plugin, capsys):
    recipe["Optimizer"] = {"name": "PlainOptimizer", "lr": {"name": "PlainSchedule", "learning_rate": 0.01}}
    Engine(load_config(with_plugin())).train()
    assert "lr(PlainSchedule): 0.01000000" in log_of(capsys)


def test_a_transform_a_batch_transform_a_sampler_and_a_hook(recipe, with_plugin):
    train = recipe["DataLoader"]["Train"]
    train["dataset"]["transform_ops"].insert(1, {"PlainTransform": {"gain": 0.5}})
    train["dataset"]["batch_transform_ops"] = [{"PlainBatchOp": None}]
    train["sampler"] = {"name": "PlainSampler", "batch_size": 4}
    recipe["Hooks"] = [{"PlainHook": None}]
    Engine(load_config(with_plugin())).train()
    assert sys.modules["my_plugin"].PlainHook.steps == 3


def test_a_plain_sampler_defines_the_order_and_a_plain_schedule_the_curve(recipe, with_plugin, capsys):
    """As the table of docs/plugins.md says; the rest comes from EpochSampler and Schedule."""
    recipe["DataLoader"]["Train"]["sampler"] = {"name": "Backwards", "batch_size": 4}
    recipe["Optimizer"]["lr"] = {"name": "Flat", "learning_rate": 0.02}
    body = """
import numpy as np
from ppcls.registry import SAMPLERS, SCHEDULES

@SAMPLERS.register()
class Backwards:
    def __init__(self, batch_size: int): self.batch_size = batch_size
    def order(self, share, epoch): return np.arange(share.length)[::-1].copy()

@SCHEDULES.register()
class Flat:
    def __init__(self, learning_rate: float): self.learning_rate = learning_rate
    def peak(self): return self.learning_rate
    def curve(self, unit, epochs): return lambda step: self.learning_rate
"""
    file = with_plugin(body=body)
    Engine(load_config(file)).train()
    assert "lr(Flat): 0.02000000" in log_of(capsys)
    with pytest.raises(ConfigError, match="batch_size: expected 1 or more, got 0"):
        load_config(file, ["DataLoader.Train.sampler.batch_size=0"])


def test_transforms_also_run_in_processes_of_the_loader(recipe, with_plugin):
    train = recipe["DataLoader"]["Train"]
    train["dataset"]["transform_ops"].insert(1, {"PlainTransform": None})
    train["loader"] = {"num_workers": 1, "use_processes": True}
    Engine(load_config(with_plugin())).train()


def test_a_dataset(recipe, with_plugin):
    recipe["DataLoader"]["Train"]["dataset"] = {"name": "PlainDataset", "size": 10}
    Engine(load_config(with_plugin())).train()


def test_a_network_trains_is_tapped_and_takes_weights(recipe, with_plugin, tmp_path, capsys):
    recipe["Arch"] = {"name": "PlainNet", "class_num": 4}
    Engine(load_config(with_plugin())).train()
    weights = tmp_path / "output" / "PlainNet" / "best_model"
    pairs = {"model_name_pairs": [["Student", "Teacher"]], "key": "relu"}
    recipe["Arch"] = {"name": "SequentialNet", "class_num": 4}
    content = distilled(recipe, DistillationDistanceLoss={"mode": "l2", **pairs})
    teacher, student = content["Arch"]["models"][0]["Teacher"], content["Arch"]["models"][1]
    teacher |= {"name": "PlainNet", "return_patterns": ["relu"], "pretrained": str(weights)}
    student["Student"] = {"name": "PlainNet", "return_patterns": ["relu"]}
    capsys.readouterr()
    path = with_plugin(content)
    Engine(load_config(path)).train()
    assert "4 of 4" in log_of(capsys)
    teacher["return_patterns"] = ["rleu"]
    with pytest.raises(ConfigError, match=r"PlainNet has no layer 'rleu'. Did you mean: relu"):
        load_config(with_plugin(content))
    assert main(["layers", "-c", str(path)]) == 0
    assert "relu" in log_of(capsys)


READS_ITSELF = """
import paddle
from paddle import nn

from ppcls.registry import BACKBONES


@BACKBONES.register()
class RunsItself(nn.Layer):
    def __init__(self, class_num: int = 1000):
        super().__init__()
        self.conv = nn.Conv2D(3, 8, 3, stride=2)
        with paddle.no_grad():
            width = self.conv(paddle.zeros([1, 3, 16, 16])).shape[1]
        self.fc = nn.Linear(width, class_num)

    def forward(self, x):
        return self.fc(self.conv(x).mean([2, 3]))


@BACKBONES.register()
class ChangesItself(RunsItself):
    def __init__(self, class_num: int = 1000):
        super().__init__(class_num)
        with paddle.no_grad():
            self.fc.weight.scale_(0.1)
"""


@pytest.mark.parametrize("passed_on", [False, True])
def test_a_network_with_open_options_gets_the_number_of_classes(passed_on, caplog):
    @BACKBONES.register()
    class OpenNet(nn.Layer):
        def __init__(self, **options):
            super().__init__(**(options if passed_on else {}))
            self.fc = nn.Linear(3, options.get("class_num", 5))

        def forward(self, x):
            return self.fc(x.mean([2, 3]))

    node = {"name": "OpenNet", "class_num": 7}
    group = {"name": "DistillationModel", "class_num": 7, "models": [{"Student": {"name": "OpenNet"}}]}
    for network in (build_model(node), build_model(group).network("Student")):
        assert network.fc.weight.shape[1] == (5 if passed_on else 7)
    assert ("OpenNet: class_num has no effect" in caplog.text) == passed_on
    caplog.clear()
    assert build_model({"name": "OpenNet"}).fc.weight.shape[1] == 5
    assert not caplog.text


def refused_by_a_layer(options):
    nn.Linear(3, 5, **options)


def refused_by_itself(options):
    if options:
        raise ValueError(f"unknown options {sorted(options)}")


@pytest.mark.parametrize("refuse", [refused_by_a_layer, refused_by_itself])
def test_a_network_that_refuses_the_number_of_classes_is_built_as_without_it(refuse, caplog):
    @BACKBONES.register()
    class StrictNet(nn.Layer):
        def __init__(self, **options):
            super().__init__()
            self.fc = nn.Linear(3, 5)
            refuse(options)

        def forward(self, x):
            return self.fc(x.mean([2, 3]))

    weights = []
    for node in ({}, {"class_num": 7}, {"class_num": 7}):
        paddle.seed(1)
        weights.append(build_model({"name": "StrictNet", **node}).fc.weight.tolist())
    assert weights[0] == weights[1] == weights[2]
    assert len(caplog.messages) == 1
    assert "StrictNet: class_num has no effect" in caplog.text
    assert "'class_num'" in caplog.text.partition("refuses it: ")[2]


def test_a_network_with_open_options_that_fails_in_any_case_is_named_with_its_first_error():
    @BACKBONES.register()
    class NeedyNet(nn.Layer):
        def __init__(self, **options):
            super().__init__()
            raise TypeError("odd 'class_num'") if "class_num" in options else KeyError("class_num")

        def forward(self, x):
            return x

    with pytest.raises(ConfigError, match="TypeError: odd 'class_num'"):
        build_model({"name": "NeedyNet", "class_num": 7})


@pytest.mark.parametrize("name", ["RunsItself", "ChangesItself"])
def test_a_network_may_read_its_own_weights_while_it_is_made(recipe, with_plugin, name, tmp_path, capsys):
    recipe["Arch"] = {"name": name, "class_num": 4}
    path = with_plugin(body=READS_ITSELF)
    Engine(load_config(path)).train()
    run = str(tmp_path / "output" / name)
    trained = log_of(capsys)
    assert main(["eval", run]) == 0
    best = re.search(r"top1 (0\.\d+)", trained)
    assert best is not None
    assert f"top1: {best[1]}" in log_of(capsys)
    assert main(["layers", "-c", str(path)]) == 0
    assert "fc" in log_of(capsys)


@pytest.mark.parametrize("name", ["PlainNet", "SequentialNet"])
def test_the_layers_of_a_network_are_listed_by_its_name(with_plugin, name, tmp_path, capsys):
    with_plugin()
    plugin = str(tmp_path / "my_plugin.py")
    assert main(["layers", name, "--plugin", plugin, "--input", "3,32,32", "--class-num", "4"]) == 0
    assert "[4, 30, 30]" in log_of(capsys)
    assert main(["models", "*Net", "--plugin", plugin]) == 0
    assert name in log_of(capsys)


def test_a_post_process(recipe, with_plugin, tmp_path, capsys):
    recipe["Arch"] = {"name": "PlainNet", "class_num": 4}
    path = with_plugin()
    Engine(load_config(path)).train()
    recipe["Infer"]["PostProcess"] = {"name": "PlainPostProcess"}
    recipe["Global"]["pretrained_model"] = recipe["Global"]["output_dir"] + "/PlainNet/best_model"
    (first, *_) = Engine(load_config(with_plugin(), mode="infer"), "infer").infer()
    assert first.keys() == {"best", "file_name"}
    Engine(load_config(with_plugin(), mode="export"), "export").export()
    folder, image = recipe["Global"]["save_inference_dir"], recipe["Infer"]["infer_imgs"]
    capsys.readouterr()
    plugin = str(tmp_path / "my_plugin.py")
    assert main(["predict", "--model-dir", folder, "--plugin", plugin, image]) == 0
    assert '"best": ' in log_of(capsys)


# ---------------------------------------------------------------- what breaks its contract


@pytest.mark.parametrize(
    ("section", "node", "body", "words"),
    [
        ("Loss.Train", [{"Bad": None}], "@LOSSES.register()\nclass Bad: pass", "not derive from paddle's"),
        (
            "Loss.Train",
            [{"Bad": None}],
            "@LOSSES.register()\nclass Bad(nn.Layer): pass",
            r"no method forward\(outputs, label\)",
        ),
        (
            "Loss.Train",
            [{"Bad": None}],
            "@LOSSES.register()\nclass Bad(nn.Layer):\n    def forward(self, logits): return logits.mean()",
            r"method forward\(self, logits\) is called as forward\(outputs, label\)",
        ),
        (
            "Loss.Train",
            [{"Bad": None}],
            "@LOSSES.register()\nclass Bad(nn.Layer):\n    networks = 'Student'\n"
            "    def forward(self, outputs, label): return 0",
            "attribute networks is 'Student', expected a list of names",
        ),
        (
            "Metric.Eval",
            [{"Bad": None}],
            "@METRICS.register()\nclass Bad:\n    higher_is_better = 'no'\n"
            "    def __call__(self, outputs, label): return {}",
            "attribute higher_is_better is 'no', expected true or false",
        ),
        ("Metric.Eval", [{"Bad": None}], "@METRICS.register()\ndef Bad(): return 3", "no method __call__"),
        (
            "DataLoader.Train.sampler",
            {"name": "Bad"},
            "@SAMPLERS.register()\nclass Bad:\n    def count(self, share): return 1\n"
            "    def batches(self, share, epoch): return []",
            r"no attribute batch_size \(a whole number\)",
        ),
        (
            "DataLoader.Train.sampler",
            {"name": "Bad", "batch_size": 2},
            "from ppcls.data import EpochSampler\n@SAMPLERS.register()\nclass Bad(EpochSampler): pass",
            r"no method order\(share, epoch\)",
        ),
        (
            "DataLoader.Train.sampler",
            {"name": "Bad", "batch_size": 2},
            "@SAMPLERS.register()\nclass Bad:\n    def __init__(self, batch_size): pass",
            r"Sampler says what a sampler has, and ppcls.data.sampler.EpochSampler what one with order has",
        ),
        (
            "DataLoader.Train.dataset",
            {"name": "Bad"},
            "@DATASETS.register()\nclass Bad:\n    def __len__(self): return 3",
            r"no method label\(index\); it has no method path\(index\)",
        ),
        ("Optimizer", {"name": "Bad", "lr": {"learning_rate": 0.1}}, "@OPTIMIZERS.register()\nclass Bad:\n"
         "    def __init__(self, lr): self.lr = lr", r"no method build\(schedule, parameters\)"),
        ("Optimizer", {"name": "SGD", "lr": {"name": "Bad"}}, "@SCHEDULES.register()\nclass Bad:\n"
         "    needs_metric = 1\n    def build(self, epochs, steps_per_epoch): pass", "needs_metric is 1"),
        ("Infer.PostProcess", {"name": "Bad"}, "@POSTPROCESSES.register()\nclass Bad: pass", "__call__"),
        ("Arch", {"name": "Bad"}, "@BACKBONES.register()\nclass Bad(nn.Layer): pass", r"forward\(x\)"),
        ("Arch", {"name": "Bad"}, "@BACKBONES.register()\ndef Bad(): return 3", "paddle's Layer"),
        ("Hooks", [{"Bad": None}], "import ppcls\n@HOOKS.register()\nclass Bad(ppcls.Hook):\n"
         "    def after_stepp(self, run, batch): pass", "none of the methods before_start, before_train"),
        ("Hooks", [{"Bad": None}], "@HOOKS.register()\nclass Bad:\n    def after_step(self): pass", "batch"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_with_the_line_of_the_class(
    recipe, with_plugin, tmp_path, section, node, body, words
):
    *steps, last = section.split(".")
    place = recipe
    for step in steps:
        place = place[step]
    place[last] = node
    imports = "from paddle import nn\nfrom ppcls.registry import *\n"
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(with_plugin(body=imports + body))
    assert section in str(caught.value)
    assert f"Bad ({tmp_path / 'my_plugin.py'}:" in str(caught.value)
    assert "says what a" in str(caught.value)


def test_our_own_components_obey_their_contracts():
    kinds = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
    assert len(kinds) == 11
    for kind in kinds:
        for name in kind:
            component = kind[name]
            if component.__module__.partition(".")[0] != "ppcls":
                continue  # another test has registered it
            assert breaches(component, kind.base_of(name)) == []
            if isinstance(component, type):
                assert issubclass(component, kind.base_of(name))


def test_an_adopted_object_stays_what_it_was_and_is_copied_and_pickled():
    class Local:
        def __call__(self, outputs, label):
            return {"a": 1.0}

    metric = adopt(Local(), Metric)
    assert isinstance(metric, Local)
    assert isinstance(metric, Metric)
    assert type(metric).__name__ == "Local"
    assert metric.higher_is_better is True
    assert adopt(metric, Metric) is metric
    assert isinstance(copy.deepcopy(metric), Metric)
    transform = pickle.loads(pickle.dumps(adopt(Half(2), Transform)))
    assert isinstance(transform, Half)
    assert isinstance(transform, Transform)
    assert transform.by == 2
    assert vars(Half).get("channel_first") is None  # the class of the user is left alone


class Half:
    def __init__(self, by):
        self.by = by

    def __call__(self, image, rng):
        return image // self.by


def test_a_layer_of_paddle_keeps_its_class_as_it_was():
    layer = adopt(nn.MSELoss(), Loss)
    assert layer.label_free is False
    assert not hasattr(nn.MSELoss(), "label_free")


# ---------------------------------------------------------------- Global.plugins


def test_files_folders_and_modules_are_found(recipe, write_recipe, tmp_path, monkeypatch):
    loss = "from paddle import nn\nfrom ppcls.registry import LOSSES\n{more}\n"
    loss += "@LOSSES.register()\nclass {name}(nn.Layer):\n    def forward(self, a, b): return a.mean()\n"
    (tmp_path / "beside_it.py").write_text("WIDTH = 3\n")
    (tmp_path / "my_file.py").write_text(loss.format(name="FileLoss", more="from beside_it import WIDTH"))
    (tmp_path / "my_folder").mkdir()
    (tmp_path / "my_folder" / "part.py").write_text("WIDTH = 3\n")
    folder = loss.format(name="FolderLoss", more="from .part import WIDTH")
    (tmp_path / "my_folder" / "__init__.py").write_text(folder)
    site, work = tmp_path / "site", tmp_path / "work"
    for place in (site, work):
        place.mkdir()
    (site / "my_module.py").write_text(loss.format(name="ModuleLoss", more=""))
    (work / "my_work.py").write_text(loss.format(name="WorkLoss", more=""))
    called = "from ppcls.registry import LOSSES\nfrom paddle import nn\ndef register():\n"
    (site / "my_called.py").write_text(called + "    LOSSES.register('CalledLoss')(nn.MSELoss)\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(work)
    names = ["./my_file.py", "my_folder/", "my_module", "./my_work.py", "my_called:register"]
    recipe["Global"]["plugins"] = names
    losses = ["FileLoss", "FolderLoss", "ModuleLoss", "WorkLoss", "CalledLoss"]
    recipe["Loss"]["Train"] = [{name: None} for name in losses]
    config = load_config(write_recipe(recipe))
    assert list(config["Global"]["plugins"]) == [
        str(tmp_path / "my_file.py"),
        str(tmp_path / "my_folder"),
        "my_module",
        str(work / "my_work.py"),
        "my_called:register",
    ]
    assert load_config(write_recipe(recipe)) == config  # a second time nothing is registered again


def test_a_base_names_what_lies_beside_the_base(recipe, write_recipe, with_plugin, tmp_path):
    recipe["Loss"]["Train"] = [{"PlainLoss": None}]
    base = with_plugin()
    (tmp_path / "other").mkdir()
    above = write_recipe({"_base_": str(base), "Global": {"epochs": 3}}, "other/above.yaml")
    assert list(load_config(above)["Global"]["plugins"]) == [str(tmp_path / "my_plugin.py")]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("./my_plugim.py", "", r"plugins.0: ./my_plugim.py: no such file in .* Did you mean: my_plugin.py"),
        ("no_such_module", "", "'no_such_module': no module of that name can be imported"),
        ("no_such.module:register", "", "no module of that name can be imported"),
        ("my_plugin", "", r"can be imported; write ./my_plugin.py for .*my_plugin.py"),
        ("json:register", "", "AttributeError: module json has no function 'register'"),
        ("", "", "'': no module of that name can be imported"),
        ("./recipe.yaml", "", "recipe.yaml: expected a Python file, whose name ends in .py"),
        (".", "", "is a folder without __init__.py, so it is no package"),
        (".\\my_plugin.py", "", r"It is written for Windows: .*my_plugin.py exists, write / for"),
        ("./my_plugin.py", "import no_such_library", r"named 'no_such_library' \(.*my_plugin.py:1\)"),
        ("./my_plugin.py", "\n\nimport json\njson.loads('')", r"JSONDecodeError: .*my_plugin.py:4\)"),
        ("./my_plugin.py", "x = 1\ndef y(:", r"SyntaxError: .*my_plugin.py:2\)"),
        ("./my_plugin.py", "import sys\nsys.exit(3)", r"SystemExit: 3 \(.*my_plugin.py:2\)"),
        (
            "./my_plugin.py",
            "from ppcls.registry import LOSSES\nfrom paddle import nn\n\nLOSSES.register('CELoss')(nn.ReLU)",
            r"'CELoss' is registered twice; ppcls itself did it first \(.*ce.py:\d+\) \(.*my_plugin.py:4\)",
        ),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_loaded(recipe, write_recipe, with_plugin, name, body, words):
    with_plugin(body=body)
    recipe["Global"]["plugins"] = [name]
    recipe["Loss"]["Train"] = [{"NameOfThePlugin": None}]
    for _ in range(2):
        with pytest.raises(ConfigError, match=words) as caught:
            load_config(write_recipe(recipe))
        assert str(caught.value).startswith("1 mistake in")


def test_a_package_that_fails_names_its_own_line(recipe, write_recipe, tmp_path, monkeypatch):
    (tmp_path / "site" / "my_package").mkdir(parents=True)
    (tmp_path / "site" / "my_package" / "__init__.py").write_text("import json\njson.loads('x')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    recipe["Global"]["plugins"] = ["my_package.losses"]
    with pytest.raises(ConfigError, match=r"JSONDecodeError: .*my_package.__init__.py:2\)"):
        load_config(write_recipe(recipe))


def test_two_plugins_with_one_name_are_both_named(recipe, write_recipe, with_plugin, tmp_path):
    with_plugin()
    (tmp_path / "my_other.py").write_text(PLAIN)
    recipe["Global"]["plugins"] = ["./my_plugin.py", "./my_other.py"]
    words = r"plugins.1: .*my_other.py cannot be loaded: .*'PlainNet' is registered twice; the plugin "
    words += r"'my_plugin' did it first \(.*my_plugin.py:\d+\)"
    with pytest.raises(ConfigError, match=words):
        load_config(write_recipe(recipe))


LOSS = "from paddle import nn\nfrom ppcls.registry import LOSSES\n@LOSSES.register()\n"
LOSS += "class {name}(nn.Layer):\n    def forward(self, a, b): return a.mean()\n"


@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize("imported", ["from helpers import SCALE", "def later():\n    import chain", ""])
def test_a_neighbour_is_never_that_of_another_plugin(recipe, write_recipe, tmp_path, package, imported):
    for name in "ab":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "helpers.py").write_text("SCALE = 1\n")
        (folder / f"chain_{name}.py").write_text("import helpers\n")
        lines = LOSS.format(name=f"Loss{name}") + "import json\n" + imported.replace("chain", f"chain_{name}")
        (folder / "json.py").write_text("")  # in vain: the standard library comes first
        file = folder / "own" / "__init__.py" if package else folder / "own.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(lines)
    recipe["Global"]["plugins"] = [f"./{name}/own" + ("" if package else ".py") for name in "ab"]
    recipe["Loss"]["Train"] = [{"Lossa": None}, {"Lossb": None}]
    path = write_recipe(recipe)
    if imported:
        with pytest.raises(
            ConfigError, match=r"b/own\S* imports 'helpers', .*/b/helpers.py, but .*/a/helpers.py"
        ):
            load_config(path)
    else:
        assert len(load_config(path).Loss.Train) == 2


def test_a_plugin_that_a_script_has_imported_is_not_imported_again(
    recipe, write_recipe, tmp_path, monkeypatch
):
    (tmp_path / "my_own.py").write_text(LOSS.format(name="MyOwnLoss"))
    monkeypatch.syspath_prepend(tmp_path)
    imported = importlib.import_module("my_own")
    recipe["Global"]["plugins"] = ["./my_own.py"]
    recipe["Loss"]["Train"] = [{"MyOwnLoss": None}]
    load_config(write_recipe(recipe))
    assert registry.LOSSES["MyOwnLoss"] is imported.MyOwnLoss


def test_transforms_of_files_with_one_name_run_in_processes(recipe, write_recipe, tmp_path):
    lines = "from ppcls.registry import TRANSFORMS\n@TRANSFORMS.register()\n"
    lines += "class {name}:\n    def __call__(self, image, rng): return image\n"
    for place, name in (
        ("a/own.py", "OpA"),
        ("b/own.py", "OpB"),
        ("c/my.own.py", "OpC"),
        ("statistics.py", "OpD"),
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text(lines.format(name=name))
    recipe["Global"]["plugins"] = ["a/own.py", "b/own.py", "c/my.own.py", "./statistics.py"]
    train = recipe["DataLoader"]["Train"]
    train["dataset"]["transform_ops"][1:1] = [{f"Op{name}": None} for name in "ABCD"]
    train["loader"] |= {"num_workers": 1, "use_processes": True}
    assert Engine(load_config(write_recipe(recipe))).train()


def test_what_lies_beside_a_plugin_may_be_imported_in_every_way(recipe, write_recipe, tmp_path):
    """Also where the folders have files of one name, which nobody imports."""
    for folder in ("first", "second"):
        (tmp_path / folder / "beside_data").mkdir(parents=True)
        (tmp_path / folder / "beside_helpers.py").write_text("")
    (tmp_path / "second" / "beside_data" / "part.py").write_text("")
    (tmp_path / "second" / "beside_odd.py").write_text("x = 1\ndef y(:")
    (tmp_path / "second" / "beside_other.py").write_text("")
    (tmp_path / "first" / "my_first.py").write_text(LOSS.format(name="FirstLoss"))
    lines = "try:\n    from . import beside_other\nexcept ImportError:\n    import beside_other\n"
    lines += "try:\n    import beside_odd\nexcept SyntaxError:\n    pass\nimport beside_data.part\n"
    (tmp_path / "second" / "my_second.py").write_text(lines + LOSS.format(name="SecondLoss"))
    recipe["Global"]["plugins"] = ["first/my_first.py", "second/my_second.py"]
    recipe["Loss"]["Train"] = [{"FirstLoss": None}, {"SecondLoss": None}]
    assert len(load_config(write_recipe(recipe)).Loss.Train) == 2


def test_a_plugin_that_fails_half_way_leaves_nothing(with_plugin):
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_config(with_plugin(body=PLAIN + "\n1 / 0\n"))
    assert "PlainNet" not in BACKBONES
    load_config(with_plugin())
    assert "PlainNet" in BACKBONES


@pytest.mark.parametrize("again", ["my_plugin.py", "beside_that_registers.py", "beside_that_imports.py"])
def test_what_a_plugin_that_fails_has_imported_registers_again(with_plugin, tmp_path, again):
    lines = (
        "from paddle import nn\nfrom ppcls.registry import LOSSES\nLOSSES.register('BesideLoss')(nn.ReLU)\n"
    )
    (tmp_path / "beside_that_registers.py").write_text(lines)
    (tmp_path / "beside_that_imports.py").write_text("import beside_that_registers\n")
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        load_config(with_plugin(body="import colorsys\nimport beside_that_imports\n1 / 0\n"))
    assert "BesideLoss" not in registry.LOSSES
    assert "colorsys" in sys.modules  # what is installed stays
    (tmp_path / "my_plugin.py").write_text("import beside_that_imports\n")
    load_plugins([str(tmp_path / again)])
    assert "BesideLoss" in registry.LOSSES


def test_a_plugin_that_is_loaded_already_is_not_looked_for(with_plugin, monkeypatch):
    path = with_plugin()
    load_config(path)
    monkeypatch.setattr(plugins, "_imported_from", pytest.fail)
    load_config(path)


def test_a_plugin_that_registers_nothing_is_warned_of(with_plugin, caplog):
    load_config(with_plugin(body="x = 1\n"))
    assert "my_plugin.py registers nothing" in caplog.text


def test_a_run_is_resumed_and_evaluated_from_its_own_config(recipe, with_plugin, tmp_path, monkeypatch):
    recipe["Loss"]["Train"] = [{"PlainLoss": None}]
    recipe["Arch"] = {"name": "PlainNet", "class_num": 4}
    Engine(load_config(with_plugin())).train()
    run = tmp_path / "output" / "PlainNet"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    asked = [f"Global.checkpoints={run / 'latest'}", "Global.epochs=2"]
    assert Engine(load_config(run / "config.yaml", asked)).train()["epoch"] > 0
    weights = [f"Global.pretrained_model={run / 'best_model'}"]
    assert Engine(load_config(run / "config.yaml", weights, mode="eval"), "eval").eval()


def test_a_config_made_in_python_loads_its_plugins(recipe, with_plugin, tmp_path):
    with_plugin()
    recipe["Global"]["plugins"] = [str(tmp_path / "my_plugin.py")]
    recipe["Arch"] = {"name": "PlainNet", "class_num": 4}
    assert Engine(recipe).model.conv.weight.shape == [4, 3, 3, 3]


def test_commands_know_the_names_of_a_plugin(recipe, with_plugin, capsys):
    recipe["Arch"] = {"name": "PlainNet", "class_num": 4}
    path = str(with_plugin())
    assert main(["validate", "-c", path]) == 0
    assert main(["check-data", "-c", path]) == 0
    assert "valid" in log_of(capsys)
