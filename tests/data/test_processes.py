"""Processes instead of threads: the same batches, and the same errors with the sample's name."""

from __future__ import annotations

import os
import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest
from support import slow_unless

from ppcls.data import ImageError, build_loader, processes
from ppcls.errors import ConfigError, DataError, TrainingError
from ppcls.registry import TRANSFORMS

COUNT = 23


@pytest.fixture
def node(tmp_path):
    """The part of a recipe, with 23 images of different sizes."""
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    (tmp_path / "list.txt").write_text("".join(f"{n}.png {n % 5}\n" for n in range(COUNT)))
    ops = [{"DecodeImage": None}, {"RandCropImage": {"size": 16}}, {"RandFlipImage": None}]
    return {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(tmp_path),
            "cls_label_path": str(tmp_path / "list.txt"),
            "transform_ops": [*ops, {"NormalizeImage": {"order": ""}}],
        },
        "sampler": {"name": "DistributedBatchSampler", "batch_size": 4, "shuffle": True},
        "loader": {"num_workers": 2, "use_processes": True},
    }


@pytest.fixture
def started(node):
    """Return a function that builds the loader and closes it after the test."""
    loaders = []

    def start(**options):
        loaders.append(build_loader({**node, "loader": node["loader"] | options}, "Train", 5, 5))
        return loaders[-1]

    yield start
    for loader in loaders:
        processes = getattr(loader._samples, "_processes", [])
        loader.close()
        assert all(process.returncode is not None for process in processes)
    deadline = time.monotonic() + 5
    while any(t.name.startswith("ppcls-loader") for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Ending:
    """A transform that ends the process that it is copied to."""

    def __call__(self, image, rng):
        return image

    def __reduce__(self):
        return sys.exit, (1,)


def test_the_batches_of_processes_are_those_of_threads(started):
    remote, local = started(), started(use_processes=False)
    for epoch, begin in ((1, 0), (2, 3)):
        for one, other in zip(remote.epoch(epoch, begin), local.epoch(epoch, begin), strict=True):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.label, other.label)
            np.testing.assert_array_equal(one.index, other.index)
            assert one.image.dtype == np.float32


def test_a_folder_of_the_same_name_is_not_taken_for_the_package(started, tmp_path, monkeypatch):
    (tmp_path / "ppcls").mkdir()
    (tmp_path / "ppcls" / "__init__.py").write_text("raise SystemExit('another ppcls')")
    monkeypatch.chdir(tmp_path)
    assert len(next(started(num_workers=1).epoch(0)).index) == 4


def test_errors_keep_their_type_and_name_the_sample(started, node, tmp_path):
    (tmp_path / "3.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"3.png \(sample 3\): cannot be decoded: it is text"):
        list(started().epoch(0))
    node["dataset"]["on_error"] = "skip"
    loader = started()
    assert sum(len(batch.index) for batch in loader.epoch(0)) == COUNT - 1
    assert list(loader.skipped) == [3]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("on_error", slow_unless(lambda value: value == "raise", ["raise", "skip"]))
def test_a_process_that_is_killed_is_an_error_with_its_sample(started, node, on_error):
    """It is none of the data: a restart may succeed, and no image is to blame that could be left out."""
    node["dataset"]["on_error"] = on_error
    loader = started(num_workers=1)
    list(loader.epoch(0))  # after the last batch of an epoch the process has nothing to do
    loader._samples._processes[0].kill()
    text = r"\d+.png \(sample \d+\): the process .* ended \(exit code -9\)"
    with pytest.raises(TrainingError, match=text):
        list(loader.epoch(1))
    assert not loader.skipped
    loader.close()
    assert len(list(loader.epoch(1))) == 6  # a new process


@pytest.mark.timeout(60)
def test_a_process_that_an_error_ends_is_an_error_of_the_data(started, node, monkeypatch):
    monkeypatch.setitem(TRANSFORMS._items, "Ending", Ending)
    node["dataset"]["transform_ops"].append({"Ending": None})
    text = r"\d+.png \(sample \d+\): the process .* ended \(exit code 1\)"
    with pytest.raises(DataError, match=text):
        list(started(num_workers=1).epoch(0))


@pytest.mark.timeout(60)
def test_a_process_that_ends_slowly_is_waited_for_no_longer(started, node, monkeypatch):
    monkeypatch.setitem(TRANSFORMS._items, "Ending", Ending)
    monkeypatch.setattr(processes, "_GRACE", 0.0)
    node["dataset"]["transform_ops"].append({"Ending": None})
    with pytest.raises((DataError, TrainingError), match="the process that prepared it ended"):
        list(started(num_workers=1).epoch(0))


@pytest.mark.timeout(60)
def test_a_process_that_hangs_is_killed(started, tmp_path):
    loader = started(timeout=30)
    list(loader.epoch(0))  # starting processes takes seconds where other work runs
    loader.timeout = 1
    (tmp_path / "9.png").unlink()
    os.mkfifo(tmp_path / "9.png")
    with pytest.raises(DataError, match=r"no sample was finished for 1 s(.|\n)*9.png \(sample 9\)"):
        list(loader.epoch(1))
    begin = time.monotonic()
    loader.close()
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("module", ["__main__", "made_by_hand"])
def test_a_transform_that_no_other_process_can_import_is_refused(started, node, monkeypatch, module):
    made = types.ModuleType(module)

    @TRANSFORMS.register()
    class InNotebook:
        def __call__(self, image, rng):
            return image

    InNotebook.__module__, InNotebook.__qualname__ = module, "InNotebook"
    made.InNotebook = InNotebook
    monkeypatch.setitem(sys.modules, module, made)
    node["dataset"]["transform_ops"].insert(1, {"InNotebook": None})
    with pytest.raises(ConfigError, match=f"InNotebook is defined in {module}, .*; use threads"):
        list(started().epoch(0))


def test_a_transform_that_cannot_be_copied_and_no_workers(started, node, monkeypatch):
    monkeypatch.setitem(TRANSFORMS._items, "Local", lambda: lambda image, rng: image)
    node["dataset"]["transform_ops"].append({"Local": None})
    with pytest.raises(ConfigError, match="use_processes: the dataset cannot be copied to a process"):
        list(started().epoch(0))
    with pytest.raises(ConfigError, match="DataLoader.Train.loader.use_processes: has no effect with"):
        started(num_workers=0)
