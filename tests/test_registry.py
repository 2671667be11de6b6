"""Names of components, and packages of other people that add to them."""

import os
import subprocess
import sys
import textwrap

import pytest
from paddle import nn

from ppcls import registry
from ppcls.config import load_config
from ppcls.errors import ConfigError
from ppcls.loss import build_loss
from ppcls.registry import BACKBONES, LOSSES, METRICS, TRANSFORMS, Registry


def test_a_name_is_found_under_its_aliases_and_only_once():
    things = Registry("thing")

    @things.register("Spoon", aliases=("Ladle",))
    def spoon():
        return 1

    assert things["Spoon"] is things["Ladle"] is spoon
    with pytest.raises(ValueError, match="'Ladle' is registered twice"):
        things.register("Ladle")(spoon)


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(
        ConfigError, match=r"unknown loss 'DistilationKLDivLos'\. Did you mean: DistillationKLDivLoss"
    ):
        LOSSES["DistilationKLDivLos"]


def write_package(folder, entry, body):
    """Lay out a package as pip installs it: the module, and metadata with its entry point."""
    info = folder / "tiny_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ppcls.plugins]\ntiny = {entry}\n")
    (folder / "tiny_plugin.py").write_text(textwrap.dedent(body))


def run(folder, *command):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
    }
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=120
    )


BODY = """
    from paddle import nn
    from ppcls.registry import LOSSES

    class MarginLoss(nn.Layer):
        def __init__(self, margin: float = 1.0) -> None:
            super().__init__()
            self.margin = margin

        def forward(self, logits, label):
            return nn.functional.relu(self.margin + logits).mean()

    def register():
        LOSSES.register("MarginLoss")(MarginLoss)
"""


@pytest.mark.slow
def test_a_plugin_package_trains_and_is_checked(tmp_path, recipe, write_recipe):
    write_package(tmp_path / "site", "tiny_plugin:register", BODY)
    recipe["Global"]["epochs"] = 1
    recipe["Loss"]["Train"] = [{"MarginLoss": {"weight": 1.0, "margin": 2.0}}]
    done = run(tmp_path / "site", "-m", "ppcls", "train", "-c", str(write_recipe(recipe)))
    assert done.returncode == 0, done.stderr
    assert "MarginLoss: " in done.stdout
    recipe["Loss"]["Train"] = [{"MarginLoss": {"weight": 1.0, "margn": 2.0}}]
    done = run(tmp_path / "site", "-m", "ppcls", "validate", "-c", str(write_recipe(recipe)))
    assert done.returncode == 2
    assert "Did you mean: margin?" in done.stderr


@pytest.mark.parametrize(
    ("target", "body", "words"),
    [
        ("tiny_plugin:nothing_of_that_name", BODY, "AttributeError"),
        ("tiny_plugin", "1 / 0", "ZeroDivisionError: division by zero"),
        ("tiny_plugin", "raise OSError('no licence')", "OSError: no licence"),
        ("tiny_plugin", "def x(:", "SyntaxError"),
        ("tiny_plugin:register", BODY + '        LOSSES.register("CELoss")(MarginLoss)', "registered twice"),
    ],
)
def test_a_plugin_that_fails_to_load_is_named(monkeypatch, tmp_path, target, body, words):
    write_package(tmp_path, target, body)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_plugin", raising=False)
    monkeypatch.setattr(registry, "_loaded", False)
    monkeypatch.setattr(registry, "_broken_plugin", None)
    for _ in range(2):  # what failed once is not taken for loaded
        with pytest.raises(ConfigError, match=r"plugin 'tiny' of tiny-plugin \(tiny_plugin") as caught:
            registry.load_components()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


class Fails(nn.Layer):
    def __init__(self, error: str) -> None:
        super().__init__()
        raise {"key": KeyError("x"), "run": RuntimeError("no\nlicence"), "stop": StopIteration()}[error]

    def forward(self, outputs, label=None):
        return outputs.mean()


@pytest.mark.parametrize(
    ("error", "words"),
    [("key", "KeyError: 'x'"), ("run", "RuntimeError: no licence"), ("stop", "StopIteration: no message")],
)
def test_a_component_of_a_plugin_that_fails_is_named(monkeypatch, recipe, write_recipe, error, words):
    registry.load_components()  # before the registries are replaced, or it would fill the replacements
    for kind in (BACKBONES, LOSSES, METRICS, TRANSFORMS):
        kind.register("Fails")(Fails)
    recipe["Loss"]["Train"] = [{"Fails": {"error": error}}]
    recipe["Metric"]["Eval"] = [{"Fails": {"error": error}}]
    recipe["DataLoader"]["Eval"]["dataset"]["transform_ops"].append({"Fails": {"error": error}})
    with pytest.raises(ConfigError) as caught:
        load_config(write_recipe(recipe))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 mistakes")
    package = __name__.partition(".")[0]
    for line in lines[1:]:
        assert f"Fails of the plugin '{package}' failed: {words} ({__file__}:" in line
    with pytest.raises(ConfigError, match="Fails of the plugin"):
        build_loss(recipe["Loss"]["Train"])


def test_a_failure_of_our_own_keeps_its_traceback():
    things = Registry("thing")

    @things.register("X")
    def factory() -> None:
        raise KeyError("ours")

    factory.__module__ = "ppcls.loss"
    with pytest.raises(KeyError):
        things.create("X", {})
