"""The wheel, installed outside the checkout, does what the README says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import ppcls

ROOT = Path(__file__).resolve().parents[1]
NEXT = "--- next command ---"
COMMANDS = f"""
import json, sys
from ppcls.cli import main
for arguments in json.loads(sys.argv[1]):
    print({NEXT!r}, flush=True)
    code = main(arguments)
    if code:
        sys.exit(code)
"""


def run(*command: object, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a new wheel into an environment that has the packages of this one, but no checkout."""
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"  # a copy: building leaves files behind
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ppcls", "configs"):
        shutil.copytree(
            ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "clean", with_pip=False)
    python = folder / "clean" / "bin" / "python"
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A folder that a .pth file names is searched, but .pth files in it, such as that of a checkout, are not.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=folder)
    return python


@pytest.mark.slow
def test_the_wheel_validates_trains_exports_and_predicts(
    python: Path, image_folder: Path, tmp_path: Path
) -> None:
    where = run(python, "-c", "import ppcls; print(ppcls.__version__, ppcls.__file__)", cwd=tmp_path).split()
    assert where[0] == ppcls.__version__
    assert str(python.parents[1]) in where[1]
    recipe = "quick_start/own_images_baseline.yaml"
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "own_images").symlink_to(image_folder)
    short = ["Arch.pretrained=False", "Arch.name=resnet8", "Arch.class_num=4", "Global.epochs=1"]
    short += ["DataLoader.Train.sampler.batch_size=4", "Global.device=cpu"]
    options = ["-c", recipe, *(part for text in short for part in ("-o", text))]
    weights = ["-o", "Global.pretrained_model=output/resnet8/best_model"]
    commands = [
        ["models", "ResNet50*"],
        ["validate", *options],
        ["train", *options],
        ["export", *options, *weights],
    ]
    # In one process, because each would import Paddle; the last command is a process as users start it.
    printed = run(python, "-c", COMMANDS, json.dumps(commands), cwd=tmp_path).split(NEXT)
    for text, part in zip(("ResNet50_vd", "valid", "best metric"), printed[1:], strict=False):
        assert text in part
    image = next(image_folder.glob("*.png"))
    command = (python, "-m", "ppcls", "predict", "--model-dir", "inference", image)
    assert image.name in run(*command, cwd=tmp_path)
