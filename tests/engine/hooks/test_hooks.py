"""Hooks of users: from a recipe, from a script, in which order they are called, and how they fail."""

import functools
import importlib
import json
import re
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from engine_hooks import StopAt
from support import slow_unless, train

import ppcls
from ppcls.config import load_config
from ppcls.engine import Engine
from ppcls.errors import ConfigError, PpclsError, TrainingError
from ppcls.registry import HOOKS
from ppcls.weights import read_params


@HOOKS.register()
class Diary(ppcls.Hook):
    """Note what is called, where the run stands then, and what a checkpoint on the disk says."""

    def __init__(self, name: str = "diary", calls: list | None = None, loudness: int = 1) -> None:
        if loudness < 0:
            raise ConfigError(f"expected at least 0, got {loudness}", path="Diary.loudness")
        self.name, self.calls = name, [] if calls is None else calls

    def note(self, method, run):
        self.calls.append((self.name, method, run.progress.epoch, run.progress.step))

    def before_start(self, run):
        self.note("before_start", run)

    def before_train(self, run):
        self.note("before_train", run)

    def after_step(self, run, batch):
        assert batch.image.shape[1:] == (3, 16, 16)
        self.note("after_step", run)

    def after_eval(self, run, metrics):
        metrics["steps"] = float(run.progress.step)
        self.note("after_eval", run)

    def after_epoch(self, run, epoch):
        assert run.progress.best_epoch is not None
        self.note("after_epoch", run)

    def after_train(self, run):
        self.note("after_train", run)


@HOOKS.register()
class Brittle(ppcls.Hook):
    """Fail in the method asked for."""

    def __init__(self, method: str, *, ours: bool = False) -> None:
        self.error = ConfigError("no such table") if ours else KeyError("missing")
        setattr(self, method, self.fail)

    def fail(self, *arguments):
        raise self.error


@HOOKS.register("PlainFunction")
def plain_function() -> object:
    return print


def engine(path, *overrides):
    return Engine(load_config(path, list(overrides)))


def test_every_method_is_called_in_order_with_the_run(recipe, write_recipe, tmp_path):
    calls = []
    best = engine(write_recipe(recipe)).train(hooks=[Diary("a", calls), Diary("b", calls)])
    assert [call[1:] for call in calls if call[0] == "a"] == [
        ("before_start", 1, 0), ("before_train", 1, 0),
        ("after_step", 1, 1), ("after_step", 1, 2), ("after_step", 1, 3),
        ("after_eval", 1, 3), ("after_epoch", 2, 3),
        ("after_step", 2, 4), ("after_step", 2, 5), ("after_step", 2, 6),
        ("after_eval", 2, 6), ("after_epoch", 3, 6), ("after_train", 3, 6),
    ]  # fmt: skip
    assert [call[0] for call in calls] == ["a", "b"] * (len(calls) // 2)
    rows = [json.loads(row) for row in (tmp_path / "output/resnet8/metrics.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows if row["kind"] == "eval"] == [3, 6]  # its own value is recorded
    assert best["steps"] in (3, 6)


class Clip(ppcls.Hook):
    """Change the weights after a step."""

    def after_step(self, run, batch):
        for parameter in run.parts.trained:
            parameter.set_value(paddle.clip(parameter, -0.05, 0.05))


def test_what_a_hook_changes_is_averaged_and_saved(recipe, write_recipe, tmp_path):
    recipe["EMA"] = {"decay": 0.0}  # the averages are the weights of the latest step
    recipe["Global"] |= {"epochs": 1, "eval_during_train": False}
    engine(write_recipe(recipe)).train(hooks=[Clip()])
    for suffix in ("pdparams", "pdema"):
        saved = read_params(tmp_path / f"output/resnet8/latest.{suffix}")
        kernels = [value for value in saved.values() if value.ndim > 1]
        assert kernels
        assert max(abs(value).max() for value in kernels) <= 0.05 + 1e-6


def test_a_recipe_names_hooks(recipe, write_recipe, tmp_path):
    recipe["Hooks"] = [{"Diary": {"name": "first"}}, {"Diary": None}]
    recipe["Global"]["epochs"] = 1
    assert train(write_recipe(recipe)) == 0
    assert "- Diary:" in (tmp_path / "output/resnet8/config.yaml").read_text()
    rows = [json.loads(row) for row in (tmp_path / "output/resnet8/metrics.jsonl").read_text().splitlines()]
    assert [row["steps"] for row in rows if row["kind"] == "eval"] == [3]


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ([{"Dairy": None}], r"Hooks\.0: unknown hook 'Dairy'\. Did you mean: Diary"),
        ([{"Diary": {"nam": "x"}}], r"Hooks\.0: Diary has no option 'nam'\. Did you mean: name"),
        ([{"Diary": {"loudness": "x"}}], r"Hooks\.0\.Diary\.loudness: expected a whole number, got 'x'"),
        ([{"Diary": {"loudness": -1}}], r"Hooks\.0\.Diary\.loudness: expected at least 0, got -1"),
        ([{"Brittle": None}], r"Hooks\.0: Brittle needs the option 'method'"),
        ({"Diary": None}, r"Hooks: expected a list of hooks"),
    ],
)
def test_mistakes_in_the_section_are_found_by_validate(recipe, write_recipe, hooks, message):
    recipe["Hooks"] = hooks
    with pytest.raises(ConfigError, match=message):
        load_config(write_recipe(recipe))


def test_what_is_no_hook_is_refused(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    with pytest.raises(
        ConfigError, match=r"hooks\[1\]: expected an object of a class derived from ppcls.Hook"
    ):
        engine(path).train(hooks=[Diary(), print])
    with pytest.raises(ConfigError, match=r"write Diary\(\.\.\.\)"):
        engine(path).train(hooks=[Diary])
    for hooks, text in (
        (Diary(), r"write hooks=\[Diary\(\.\.\.\)\]"),
        ("Diary", "got 'Diary'"),
        (3, "got 3"),
    ):
        with pytest.raises(ConfigError, match=rf"^hooks: expected a list of hooks, .*{text}"):
            engine(path).train(hooks=hooks)
    recipe["Hooks"] = [{"PlainFunction": None}]
    with pytest.raises(ConfigError, match=r"Hooks\.0"):
        engine(write_recipe(recipe)).train()
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "method", ["before_start", "before_train", "after_step", "after_eval", "after_epoch"]
)
def test_a_hook_that_fails_is_named(recipe, write_recipe, tmp_path, capsys, method):
    recipe["Hooks"] = [{"Brittle": {"method": method}}]
    path = write_recipe(recipe)
    with pytest.raises(TrainingError) as failed:
        engine(path).train()
    assert str(failed.value).startswith(f"hook Brittle, {method}: KeyError: 'missing' (")
    assert f"{__file__}:" in str(failed.value)
    assert isinstance(failed.value.__cause__, KeyError)
    assert (tmp_path / "output").exists() == (method != "before_start")
    recipe["Hooks"] = [{"Brittle": {"method": method, "ours": True}}]
    with pytest.raises(PpclsError, match=f"^hook Brittle, {method}: no such table$"):
        engine(write_recipe(recipe)).train()


class Sum(ppcls.Hook):
    """Add the losses of all steps, which only a state that is kept makes right after a resume."""

    def __init__(self):
        self.total, self.restored = 0.0, 0

    def after_step(self, run, batch):
        self.total += run.read()["loss"]

    def state(self):
        return {"total": self.total}

    def restore(self, state):
        self.total = state["total"]
        self.restored += 1


@pytest.mark.parametrize("stop_at", slow_unless(lambda step: step == 2, [2, 3]))
def test_the_state_of_a_hook_is_resumed(recipe, write_recipe, tmp_path, stop_at):
    path = write_recipe(recipe)
    whole, cut, resumed = ([Sum(), Diary(), Sum()] for _ in range(3))
    engine(path, f"Global.output_dir={tmp_path}/whole").train(hooks=whole)
    with pytest.raises(SystemExit):
        engine(path, f"Global.output_dir={tmp_path}/cut").train(hooks=[*cut, StopAt(stop_at)])
    latest = f"Global.checkpoints={tmp_path}/cut/resnet8/latest"
    engine(path, f"Global.output_dir={tmp_path}/cut", latest).train(hooks=resumed)
    assert [hook.total for hook in resumed[::2]] == [hook.total for hook in whole[::2]] != [0.0, 0.0]
    assert [hook.restored for hook in resumed[::2]] == [1, 1]
    states = [json.loads((tmp_path / d / "resnet8/latest.pdstates").read_text()) for d in ("whole", "cut")]
    assert states[0] == states[1]
    assert states[0]["hooks"] == {"Sum": {"total": whole[0].total}, "Sum.2": {"total": whole[0].total}}


def test_a_state_of_a_hook_that_is_gone_is_named_and_one_that_is_no_json_refused(
    recipe, write_recipe, tmp_path, capsys, monkeypatch
):
    recipe["Global"]["epochs"] = 1
    path = write_recipe(recipe)
    engine(path).train(hooks=[Sum()])
    engine(path, "Global.epochs=2", "Global.checkpoints=auto").train()
    assert (
        "the checkpoint holds the state of the hook Sum, which this run does not have"
        in capsys.readouterr().out
    )
    monkeypatch.setattr(Sum, "state", lambda self: {"total": paddle.ones([1])})
    with pytest.raises(TrainingError, match="^hook Sum, state: TypeError: .*Tensor.* not JSON serializable"):
        engine(path, f"Global.output_dir={tmp_path}/other").train(hooks=[Sum()])


def test_the_hook_of_the_documentation_works(recipe, write_recipe, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[3] / "docs/hooks.md").read_text(encoding="utf-8")
    module, section, *_ = re.findall(r"```(?:python|yaml)\n(.*?)```", page, re.DOTALL)
    (tmp_path / "my_hooks.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_hooks")
    recipe["Hooks"] = yaml.safe_load(section)["Hooks"]
    recipe["Hooks"][0]["StopAtAccuracy"]["top1"] = 0.0
    assert train(write_recipe(recipe)) == 0
    rows = [json.loads(row) for row in (tmp_path / "output/resnet8/metrics.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["missing"]) for row in rows if row["kind"] == "eval"] == [(1, 0)]
    assert '"missing": 0.0' in capsys.readouterr().out


def test_a_hook_of_a_script_that_would_never_be_called_is_refused(recipe, write_recipe, tmp_path):
    path = write_recipe(recipe)
    misspelt = type("Misspelt", (ppcls.Hook,), {"after_steps": lambda self, run, batch: None})
    beside = type("Beside", (Diary,), {"after_epochs": lambda self, run, epoch: None})
    short = type("Short", (ppcls.Hook,), {"after_step": lambda self, run: None})
    for hook, text in (
        (misspelt(), r"Misspelt has a method after_steps, which is never called\. Did you mean: after_step"),
        (beside(), r"Beside has a method after_epochs, which is never called\. Did you mean: after_epoch"),
        (type("Empty", (ppcls.Hook,), {})(), "Empty .*is no complete hook: it defines none of the methods"),
        (short(), r"Short .*is no complete hook: its method after_step\(self, run\) is called as"),
    ):
        with pytest.raises(ConfigError, match=rf"hooks\[1\]: {text}"):
            engine(path).train(hooks=[Diary(), hook])
    assert not (tmp_path / "output").exists()
    assert engine(path).build_run(hooks=None).parts.loader.close() is None


def _changing(change):
    return type("Changing", (ppcls.Hook,), {"after_eval": lambda self, run, metrics: change(metrics)})()


def test_values_that_a_hook_adds_are_plain_numbers(recipe, write_recipe, tmp_path):
    def change(metrics):
        metrics.update(a=np.float32(0.5), b=paddle.to_tensor(2.0), c=True, d=np.int64(3))

    best = engine(write_recipe(recipe), "Global.epochs=1").train(hooks=[_changing(change)])
    assert {name: best[name] for name in "abcd"} == {"a": 0.5, "b": 2.0, "c": 1.0, "d": 3.0}
    assert all(type(best[name]) is float for name in "abcd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metrics: metrics.update(x="0.5"), "expected a number for 'x' .*, got '0.5'"),
        (lambda metrics: metrics.update(x=None), "expected a number for 'x' .*, got None"),
        (lambda metrics: metrics.update(x=paddle.zeros([2])), "expected a number for 'x' "),
        (lambda metrics: metrics.update({5: 1.0}), "expected a text as the name .*, got 5"),
        (lambda metrics: metrics.clear(), "the value '.*' of the evaluation was removed"),
    ],
)
def test_values_that_are_no_numbers_name_the_hook(recipe, write_recipe, change, message):
    with pytest.raises(TrainingError, match=f"hook Changing, after_eval: {message}"):
        engine(write_recipe(recipe), "Global.epochs=1").train(hooks=[_changing(change)])


def test_a_state_that_is_no_map_says_what_it_should_be(recipe, write_recipe):
    hook = type(
        "Stateless", (ppcls.Hook,), {"state": lambda self: None, "after_train": lambda self, run: 0}
    )()
    with pytest.raises(TrainingError, match=r"hook Stateless, state: expected a map such as .*, got None"):
        engine(write_recipe(recipe), "Global.epochs=1").train(hooks=[hook])


def _setting(method, **values):
    """Return a hook that sets attributes of the run, given by their dotted names."""

    def change(self, run, *more):
        for name, value in values.items():
            *path, last = name.split("__")
            setattr(functools.reduce(getattr, path, run), last, value)

    return type("Setting", (ppcls.Hook,), {method: change})()


@pytest.mark.parametrize(
    "method", ["before_start", "before_train", "after_step", "after_eval", "after_epoch"]
)
def test_a_run_that_a_hook_ends_finishes_its_epoch_and_saves(recipe, write_recipe, tmp_path, method):
    path = write_recipe(recipe)
    engine(path, "Global.epochs=3").train(hooks=[_setting(method, ending=True)])
    saved = json.loads((tmp_path / "output/resnet8/latest.pdstates").read_text())
    assert (saved["epoch"], saved["step"], saved["finished"]) == (2, 3, True)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("endign", "Run has no attribute 'endign'. Did you mean: ending"),
        ("progress__epcoh", "Progress has no attribute 'epcoh'. Did you mean: epoch"),
        ("settings__epoch", "Settings has no attribute 'epoch'. Did you mean: epochs"),
        ("parts__opimizer", "Parts has no attribute 'opimizer'. Did you mean: optimizer"),
    ],
)
def test_a_misspelt_attribute_of_the_run_is_not_accepted(recipe, write_recipe, wrong, message):
    with pytest.raises(TrainingError, match=f"^hook Setting, before_start: AttributeError: {message}"):
        engine(write_recipe(recipe)).train(hooks=[_setting("before_start", **{wrong: 1})])
