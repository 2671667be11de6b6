"""The loader: the same batches whatever prepares them, errors that name the sample, and prompt ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cv2
import numpy as np
import pytest
from support import same_batches, slow_unless

from ppcls.data import ImageError, build_dataset, build_loader
from ppcls.errors import ConfigError, DataError
from ppcls.registry import BATCH_OPS, TRANSFORMS

COUNT = 23
CROP = [{"DecodeImage": None}, {"RandCropImage": {"size": 16}}, {"RandFlipImage": None}]


class FailAtWhite:
    """Third-party code with an error of its own."""

    def __call__(self, image, rng):
        if image.min() == 255:
            raise ZeroDivisionError("white")
        return image


class Slow:
    def __init__(self, seconds: float = 0.05):
        self.seconds = seconds

    def __call__(self, image, rng):
        time.sleep(self.seconds)
        return image


class AddNoise:
    def __call__(self, images, labels, rng):
        return images + rng.uniform(size=(len(images), 1, 1, 1)).astype(np.float32), labels


@pytest.fixture(autouse=True)
def _plugins(monkeypatch):
    """Make them known for the time of a test."""
    for plugin in (FailAtWhite, Slow):
        monkeypatch.setitem(TRANSFORMS._items, plugin.__name__, plugin)
    monkeypatch.setitem(BATCH_OPS._items, "AddNoise", AddNoise)


@pytest.fixture
def folder(tmp_path):
    """23 images of different sizes with 5 classes, and list.txt."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        image = rng.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        lines.append(f"{number}.png {number % 5}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture(autouse=True)
def _no_threads_left():
    before = set(threading.enumerate())  # other tests may leave one that hangs on purpose
    yield
    deadline = time.monotonic() + 5
    while any(t.name.startswith("ppcls-loader") for t in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline, "threads of a loader are still there"
        time.sleep(0.01)


def node(folder, ops=CROP, workers=2, batch_size=4, shuffle=True, drop_last=False, **dataset):
    return {
        "dataset": {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(folder / "list.txt"),
            "transform_ops": [*ops, {"NormalizeImage": {"order": ""}}],
            **dataset,
        },
        "sampler": {
            "name": "DistributedBatchSampler",
            "batch_size": batch_size,
            "shuffle": shuffle,
            "drop_last": drop_last,
        },
        "loader": {"num_workers": workers, "use_shared_memory": True},
    }


def run(config, epoch=0, start=0, mode="Train", seed=5):
    loader = build_loader(config, mode, seed=seed, class_num=5)
    try:
        return list(loader.epoch(epoch, start))
    finally:
        loader.close()


def test_batches_hold_what_they_say(folder):
    config = node(folder)
    loader = build_loader(config, "Train", seed=5, class_num=5)
    batches = list(loader.epoch(3))
    loader.close()
    assert len(batches) == len(loader) == 6
    assert sorted(i for b in batches for i in b.index) == list(range(COUNT))
    for batch in batches:
        assert batch.image.dtype == np.float32
        assert batch.label.dtype == batch.index.dtype == np.int64
        assert batch.label.shape == (len(batch.index), 1)
        assert batch.image.shape == (len(batch.index), 3, 16, 16)
        for place, index in enumerate(batch.index):
            image, label = loader.dataset.sample(int(index), 3, 5)
            np.testing.assert_array_equal(batch.image[place], image)
            assert batch.label[place, 0] == label == index % 5
            assert loader.dataset.path(int(index)) == str(folder / f"{index}.png")


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(folder, workers):
    extra = {"batch_transform_ops": [{"AddNoise": None}]}
    alone = run(node(folder, workers=0, **extra), epoch=2)
    assert same_batches(alone, run(node(folder, workers=workers, **extra), epoch=2))
    assert not same_batches(alone, run(node(folder, workers=workers, **extra), epoch=3))
    assert not same_batches(alone, run(node(folder, workers=workers, **extra), epoch=2, seed=6))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_mid_epoch_gives_the_rest(folder, workers):
    config = node(folder, workers=workers, batch_transform_ops=[{"AddNoise": None}])
    whole = run(config)
    for start in (1, 4, 6):
        assert same_batches(whole[start:], run(config, start=start))


def test_two_processes_see_what_one_sees(folder, monkeypatch):
    alone = run(node(folder, batch_size=8, drop_last=True))
    parts = []
    for rank in ("0", "1"):
        monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
        parts.append(run(node(folder, batch_size=4, drop_last=True)))
        evaluated = run(node(folder, batch_size=4), mode="Eval")
        assert sum(len(b.index) for b in evaluated) in (11, 12)
    for whole, first, second in zip(alone, *parts, strict=True):
        np.testing.assert_array_equal(whole.image, np.concatenate([first.image, second.image]))
        np.testing.assert_array_equal(whole.index, np.concatenate([first.index, second.index]))


def test_evaluation_keeps_the_order_and_every_sample(folder):
    batches = run(node(folder, shuffle=False), mode="Eval")
    assert np.concatenate([b.index for b in batches]).tolist() == list(range(COUNT))


def test_gray_images_have_one_channel(folder):
    ops = [
        {"DecodeImage": {"channels": 1}},
        {"RandomCropImage": {"size": 20, "padding": 1}},
        {"RandFlipImage": None},
    ]
    config = node(folder, ops)
    config["dataset"]["transform_ops"][-1] = {"NormalizeImage": {"mean": [0.5], "std": [0.5], "order": ""}}
    assert all(batch.image.shape[1:] == (1, 20, 20) for batch in run(config))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_transform_names_the_sample(folder, workers):
    cv2.imwrite(str(folder / "17.png"), np.full((30, 30, 3), 255, np.uint8))
    with pytest.raises(
        DataError, match=r"17.png \(sample 17\): FailAtWhite: ZeroDivisionError: white"
    ) as caught:
        run(node(folder, [*CROP, {"FailAtWhite": None}], workers))
    named = caught.value.__cause__  # names the transform
    assert named is not None
    assert isinstance(named.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_ends_the_run(folder, workers):
    (folder / "3.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"3.png \(sample 3\): cannot be decoded"):
        run(node(folder, workers=workers))
    loader = build_loader(node(folder, workers=workers), "Train", seed=5)
    (folder / "4.png").unlink()
    with pytest.raises(ImageError, match=r"png \(sample [34]\): cannot be"):
        list(loader.epoch(0))
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_out_counts_and_names(folder, workers, caplog):
    whole = run(node(folder, workers=workers))
    for number in (3, 4):
        (folder / f"{number}.png").write_bytes(b"nothing")
    loader = build_loader(node(folder, workers=workers, on_error="skip"), "Train", seed=5)
    batches = list(loader.epoch(0))
    assert set(loader.skipped) == {3, 4}
    assert "3.png (sample 3): cannot be decoded" in loader.skipped[3]
    assert caplog.text.count("so far") == 2
    for batch, complete in zip(batches, whole, strict=True):
        keep = ~np.isin(complete.index, [3, 4])
        np.testing.assert_array_equal(batch.index, complete.index[keep])
        np.testing.assert_array_equal(batch.image, complete.image[keep])
        np.testing.assert_array_equal(batch.label, complete.label[keep])
    list(loader.epoch(0))
    assert caplog.text.count("so far") == 2
    assert caplog.text.count("list.txt: 2 of 23 images left out") == 2
    loader.close()


@pytest.mark.parametrize("side", [16, 20])  # where a PNG says its width and its height
def test_an_image_whose_header_says_nothing_is_left_out_too(folder, side):
    damaged = bytearray((folder / "3.png").read_bytes())
    damaged[side : side + 4] = b"\0\0\0\0"
    (folder / "3.png").write_bytes(damaged)
    long = np.zeros((1, 1000, 3), np.uint8)
    cv2.imwrite(str(folder / "4.png"), long)
    chain = [{"DecodeImage": {}}, {"ResizeImage": {"resize_short": 256}}, {"CropImage": {"size": 8}}]
    loader = build_loader(node(folder, chain, on_error="skip"), "Train", seed=5)
    list(loader.epoch(0))
    assert set(loader.skipped) == {3, 4}
    assert "cannot be decoded" in loader.skipped[3]
    assert "256000 x 256 pixels" in loader.skipped[4]
    loader.close()


def test_skipping_hides_no_broken_transform_and_no_empty_batch(folder):
    cv2.imwrite(str(folder / "17.png"), np.full((30, 30, 3), 255, np.uint8))
    with pytest.raises(DataError, match="ZeroDivisionError"):
        run(node(folder, [*CROP, {"FailAtWhite": None}], on_error="skip"))
    for number in range(COUNT):
        (folder / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no image of a batch of 4 can be read, .* the first: \S*png"):
        run(node(folder, on_error="skip"))
    with pytest.raises(DataError, match="none of 23 images can be read"):
        run(node(folder, on_error="skip"), mode="Eval")


def test_evaluation_leaves_out_a_batch_without_images(folder, caplog):
    (folder / "3.png").write_bytes(b"nothing")
    batches = run(node(folder, on_error="skip", batch_size=1, shuffle=False), mode="Eval")
    assert [int(b.index[0]) for b in batches] == [n for n in range(COUNT) if n != 3]
    assert "1 of 23 images left out" in caplog.text


def test_the_first_image_is_the_first_that_can_be_read(folder):
    config = node(folder, [{"DecodeImage": None}], on_error="skip")
    loader = build_loader(config, "Train", seed=5)
    assert loader.first_image().shape == (3, 20, 30)
    for number in range(2):
        (folder / f"{number}.png").write_bytes(b"nothing")
    assert loader.first_image().shape == (3, 22, 30)
    loader.close()
    with pytest.raises(ImageError, match="0.png"):
        build_loader(node(folder, workers=0), "Train", seed=5).first_image()


@pytest.mark.timeout(60)
def test_a_sample_that_hangs_ends_the_epoch_with_its_name(folder):
    config = node(folder)
    config["loader"]["timeout"] = 0.4
    loader = build_loader(config, "Train", seed=5)
    (folder / "9.png").unlink()
    os.mkfifo(folder / "9.png")
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"no sample was finished for 0.4 s(.|\n)*9.png \(sample 9\)\n"):
        list(loader.epoch(0))
    loader.close()
    assert time.monotonic() - begin < 10
    with (folder / "9.png").open("wb"):  # let the thread go
        pass


def test_slow_samples_are_no_hung_ones(folder):
    config = node(folder, [*CROP, {"Slow": {"seconds": 0.08}}], workers=1)
    config["loader"]["timeout"] = 0.3
    assert len(run(config)) == 6  # a batch takes as long as the timeout, a sample does not


@pytest.mark.parametrize("workers", [0, 2])
def test_a_transform_that_ends_its_thread_is_an_error_with_the_sample(folder, workers, monkeypatch):
    monkeypatch.setitem(TRANSFORMS._items, "Leave", lambda: lambda image, rng: sys.exit("bye"))
    with pytest.raises(DataError, match=r"png \(sample \d+\): SystemExit: bye"):
        run(node(folder, [*CROP, {"Leave": None}], workers))


def test_a_forgotten_loader_ends_its_threads(folder):
    loader = build_loader(node(folder), "Train", seed=5)
    next(iter(loader.epoch(0)))
    del loader
    gc.collect()  # the fixture looks for threads


def test_images_of_different_sizes_are_explained(folder):
    with pytest.raises(
        DataError, match=r"png \(sample \d+\): the transforms give .* end the chain with a crop"
    ):
        run(node(folder, [{"DecodeImage": None}]))


def test_leaving_early_and_going_on(folder):
    loader = build_loader(node(folder, [*CROP, {"Slow": None}], batch_size=2), "Train", seed=5)
    for number, _ in enumerate(loader.epoch(0)):
        if number == 1:
            break
    begin = time.monotonic()
    first = next(iter(loader.epoch(1)))
    assert time.monotonic() - begin < 2
    loader.close()
    again = list(loader.epoch(1))  # new threads after close()
    np.testing.assert_array_equal(first.image, again[0].image)
    loader.close()


def test_work_ahead_is_bounded(folder, monkeypatch):
    seen = []
    monkeypatch.setitem(TRANSFORMS._items, "Count", lambda: lambda image, rng: seen.append(1) or image)
    (folder / "list.txt").write_text("0.png 0\n" * 4000)
    loader = build_loader(node(folder, [*CROP, {"Count": None}], batch_size=8), "Train", seed=5)
    batches = loader.epoch(0)
    next(batches)
    time.sleep(0.5)
    assert len(seen) <= 8 * (1 + 4)
    batches.close()
    loader.close()


def test_too_few_samples_for_a_step(folder):
    with pytest.raises(DataError, match=r"list.txt: 23 samples, but a step takes 24 .* drop_last: False"):
        build_loader(node(folder, batch_size=24, drop_last=True), "Train", seed=0)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda c: c["loader"].update(num_worker=2),
            "DataLoader.Eval.loader: no option 'num_worker'. Did you",
        ),
        (lambda c: c["loader"].update(num_workers=-1), "DataLoader.Eval.loader.num_workers: at least 0"),
        (lambda c: c["loader"].update(timeout=-1), "DataLoader.Eval.loader.timeout: at least 0"),
        (
            lambda c: c["sampler"].update(drop_last=True),
            "DataLoader.Eval.sampler.drop_last: evaluation counts",
        ),
        (lambda c: c["sampler"].update(name="Distributed"), "DataLoader.Eval.sampler: unknown sampler"),
        (
            lambda c: c["dataset"].update(image_rot="x"),
            "has no option 'image_rot'. Did you mean: image_root?",
        ),
        (lambda c: c["dataset"].pop("image_root"), "ImageNetDataset needs the option 'image_root'"),
        (lambda c: c["dataset"].update(relabel=True), "name the training list in both"),
        (
            lambda c: c["dataset"].update(on_error="ignore"),
            "on_error: expected 'raise' or 'skip', got 'ignore'",
        ),
        (
            lambda c: c["dataset"].update(batch_transform_ops=[{"Mix": None}]),
            "batch_transform_ops.0: unknown",
        ),
    ],
)
def test_mistakes_in_the_node(folder, change, part):
    config = node(folder)
    change(config)
    with pytest.raises(ConfigError) as caught:
        build_loader(config, "Eval", seed=0)
    assert part in str(caught.value)


def test_relabel_serves_training_and_evaluation(folder):
    (folder / "val.txt").write_text("0.png 4\n1.png 2\n")
    (folder / "train.txt").write_text("5.png 2\n6.png 4\n7.png 9\n")
    config = node(folder, relabel=str(folder / "train.txt"))["dataset"]
    config["cls_label_path"] = str(folder / "val.txt")
    dataset = build_dataset(config, "Eval", class_num=3)
    assert [dataset.label(i) for i in range(2)] == [1, 0]


INTERRUPTED = """
import sys, time
import ppcls.data as data
from ppcls.registry import TRANSFORMS

@TRANSFORMS.register()
class Slow:
    def __call__(self, image, rng):
        time.sleep(1)
        return image

loader = data.build_loader({
    "dataset": {"name": "ImageNetDataset", "image_root": sys.argv[1],
                "cls_label_path": sys.argv[1] + "/list.txt",
                "transform_ops": [{"DecodeImage": None}, {"CropImage": {"size": 8}}, {"Slow": None}]},
    "sampler": {"name": "DistributedBatchSampler", "batch_size": 64},
    "loader": {"num_workers": int(sys.argv[2])},
}, "Train", seed=0)
print("ready", flush=True)
try:
    next(loader.epoch(0))
finally:
    print("ended", flush=True)
"""


@pytest.mark.parametrize("workers", slow_unless(bool, [0, 3]))
@pytest.mark.timeout(120)
def test_interrupt_ends_promptly(folder, workers):
    """The first batch would take at least 20 seconds; Ctrl-C ends the process long before."""
    (folder / "list.txt").write_text("0.png 0\n" * 640)
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(folder), str(workers)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - begin < 15
    finally:
        process.kill()
        process.wait()
    assert out == "ended\n"
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode != 0
