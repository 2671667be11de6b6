"""Names of components, and packages of other people that add to them."""

import os
import subprocess
import sys
import textwrap

import pytest

from ppcls.errors import ConfigError
from ppcls.registry import LOSSES, Registry


def test_a_name_is_found_under_its_aliases_and_only_once():
    registry = Registry("thing")

    @registry.register("Spoon", aliases=("Ladle",))
    def spoon():
        return 1

    assert registry["Spoon"] is registry["Ladle"] is spoon
    with pytest.raises(ValueError, match="'Ladle' is registered twice"):
        registry.register("Ladle")(spoon)


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


def test_a_broken_plugin_is_named(tmp_path, recipe, write_recipe):
    write_package(tmp_path / "site", "tiny_plugin:nothing_of_that_name", BODY)
    done = run(tmp_path / "site", "-m", "ppcls", "validate", "-c", str(write_recipe(recipe)))
    assert done.returncode == 2
    assert "plugin 'tiny' of tiny-plugin" in done.stderr
    assert "Traceback" not in done.stderr
