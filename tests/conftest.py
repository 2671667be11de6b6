"""What many tests share: a few real pixels, and a recipe small enough to run in a second."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import settings
from hypothesis.internal.conjecture import providers
from support import PHOTOS, tiny_recipe

if TYPE_CHECKING:
    from ppcls.registry import Registry

# Threads change the last digits, and tests run side by side. Paddle reads this when it is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test cuts the power, and waiting for the disk takes a tenth of a run. Tests that are about it count
# the calls or let them fail.
os.fsync = lambda handle: None

# Every run tries the same inputs: a red run means that a change broke something, not that luck found it.
# New inputs are looked for by tests/fuzz, whose seed can be chosen.
settings.register_profile("same every time", derandomize=True, database=None, deadline=None)
settings.load_profile("same every time")
if hasattr(providers, "_get_local_constants"):
    # Newer versions of hypothesis also try numbers and texts that occur in the modules imported so far, which
    # depend on the tests that ran before in the same process.
    providers._get_local_constants = lambda constants=providers._local_constants: constants


@pytest.fixture(autouse=True)
def _random_numbers_start_anew():
    """Random numbers of a test must not depend on the tests before it, nor on the moment."""
    random.seed(0)
    np.random.seed(0)
    if "paddle" in sys.modules:
        sys.modules["paddle"].seed(0)


@pytest.fixture(autouse=True)
def _console_stays_ours():
    """Commands configure the logger ``ppcls``; give it back as it was, so that caplog sees it."""
    logger = logging.getLogger("ppcls")
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


_all_calls = traceback.extract_stack


def _last_calls(f: Any = None, limit: int | None = None) -> traceback.StackSummary:
    """Return two calls to whoever names no frame, as Paddle does; what prints a stack names one."""
    return _all_calls(f, limit) if f is not None else _all_calls(sys._getframe(1), limit or 2)


# While Paddle traces a network, it keeps for every operator all calls that led to it, of which pytest makes
# forty: more than half of the time of an export. Nobody reads them.
traceback.extract_stack = _last_calls


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than there are cores: many a test waits for a process it has started."""
    from ppcls.cpu.processor import available_cores

    return available_cores() + 1


# Thousands of tests are collected, and all of them stay: looking for garbage takes a quarter of that time.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what the imported modules consist of out of every later collection of garbage: it stays."""
    gc.enable()
    gc.collect()
    gc.freeze()


MUCH_MEMORY = 1 << 30


@pytest.fixture(autouse=True, scope="module")
def _memory_is_given_back():
    """Return what freed networks leave between other blocks; a process would come to hold several GB."""
    yield
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
    if pages * os.sysconf("SC_PAGE_SIZE") > MUCH_MEMORY:
        gc.collect()
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):  # the C library is glibc
            library.malloc_trim(0)


Entries = list[dict[str, Callable[..., Any]]]
_own_components: dict[Path, Entries] = {}


def _entries() -> Entries:
    """Return what is registered, a dict per kind of component."""
    from ppcls import registry

    registry.load_components()
    return [kind.entries for kind in _kinds()]


def _restore(entries: Entries) -> None:
    for kind, of_kind in zip(_kinds(), entries, strict=True):
        kind.restore(of_kind)


def _kinds() -> list[Registry]:
    from ppcls import registry

    return [value for value in vars(registry).values() if isinstance(value, registry.Registry)]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Take back what a test file registers when it is imported: other files list all components."""
    if not isinstance(collector, pytest.Module):
        return (yield)
    before = _entries()
    report = yield
    after = _entries()
    _own_components[collector.path] = [
        {name: entry for name, entry in new.items() if name not in old}
        for old, new in zip(before, after, strict=True)
    ]
    _restore(before)
    return report


@pytest.fixture(autouse=True)
def _only_own_components(request: pytest.FixtureRequest):
    """A test sees the components of ppcls and those of its own file, not what other tests registered."""
    before = _entries()
    own = _own_components.get(request.path, [{}] * len(before))
    _restore([kind | more for kind, more in zip(before, own, strict=True)])
    yield
    _restore(before)


@pytest.fixture
def quick_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights of large networks come from stored numbers: for tests that build many of them."""
    from quick_weights import use_stored_numbers

    use_stored_numbers(monkeypatch)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with 12 crops of real photos, 16 x 16, of 4 classes, and train_list.txt, val_list.txt."""
    folder = tmp_path / "images"
    folder.mkdir()
    lines = []
    rng = np.random.default_rng(0)
    for label, photo in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        pixels = cv2.imread(str(photo))
        for number in range(3):
            y, x = rng.integers(0, pixels.shape[0] - 48), rng.integers(0, pixels.shape[1] - 48)
            name = f"{photo.stem}_{number}.png"
            cv2.imwrite(str(folder / name), cv2.resize(pixels[y : y + 48, x : x + 48], (16, 16)))
            lines.append(f"{name} {label}\n")
    (folder / "train_list.txt").write_text("".join(lines))
    (folder / "val_list.txt").write_text("".join(lines[::2]))
    return folder


@pytest.fixture
def recipe(image_folder: Path, tmp_path: Path) -> dict:
    """A plain recipe as a dict, to be changed and written."""
    return tiny_recipe(image_folder, tmp_path / "output")


_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@pytest.fixture
def write_recipe(tmp_path: Path):
    """Return a function that writes a recipe to a YAML file and returns its path."""

    def write(content: dict, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.write_text(yaml.dump(content, Dumper=_Dumper, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def forget_plugins(monkeypatch: pytest.MonkeyPatch):
    """What a test loads as a plug-in is loaded anew in the next one."""
    from ppcls import plugins

    monkeypatch.setattr(plugins, "_loaded", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.startswith(("my_", "beside")):
            del sys.modules[name]
