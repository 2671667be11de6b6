"""The sides of speed.py: each builds its networks and makes a step whenever it is asked to."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 100


def recipe(folder: Path, size: int, batch: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of the distillation; without a teacher if an option says so.

    It has so many epochs that making a program for the teacher pays.
    """
    made: dict[str, Any] = {
        "Global": {"device": "cpu", "epochs": 10_000, "seed": 1, "eval_during_train": False},
        "Arch": {
            "name": "DistillationModel",
            "class_num": CLASSES,
            "freeze_params_list": [True, False],
            "models": [{"Teacher": {"name": "ResNet34"}}, {"Student": {"name": "ResNet18"}}],
        },
        "Loss": {
            "Train": [
                {"DistillationGTCELoss": {"weight": 1.0, "model_names": ["Student"]}},
                {
                    "DistillationKLDivLoss": {
                        "weight": 0.9,
                        "model_name_pairs": [["Student", "Teacher"]],
                        "temperature": 4,
                    }
                },
            ]
        },
        "Optimizer": {
            "name": "Momentum",
            "momentum": 0.9,
            "lr": {"name": "Cosine", "learning_rate": 0.01},
            "regularizer": {"name": "L2", "coeff": 1e-4},
        },
        "DataLoader": {
            "Train": {
                "dataset": {
                    "name": "ImageNetDataset",
                    "image_root": str(folder),
                    "cls_label_path": str(folder / "list.txt"),
                    "transform_ops": [{"DecodeImage": {}}, {"NormalizeImage": {"order": ""}}],
                },
                "sampler": {"name": "DistributedBatchSampler", "batch_size": batch, "shuffle": True},
                "loader": {"num_workers": 2},
            }
        },
        "Metric": {"Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 5]}}]},
    }
    made["Global"] |= {"output_dir": str(folder / "output"), "image_shape": [3, size, size]}
    for key, value in options.items():
        if key == "metrics":
            made.pop("Metric")
        else:
            section, _, name = key.partition(".")
            made[section][name] = value
    return made


def random_batch(size: int, batch: int) -> tuple[Any, Any]:
    """Return images [batch, 3, size, size] and labels [batch, 1], the same on every side."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, 3, size, size), dtype="float32")
    return images, rng.integers(0, CLASSES, (batch, 1))


def build_ppcls(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build a run of our engine, log lines and scalars included; return its step within an endless epoch."""
    import cv2
    import numpy as np

    from ppcls.config import load_config
    from ppcls.data import Batch
    from ppcls.engine import Engine
    from ppcls.engine.hooks.base import call_hooks
    from ppcls.engine.start.lookahead import begin_lookahead
    from ppcls.engine.start.trial import try_out
    from ppcls.engine.train import batches_of_epoch, start_epoch, train_batch
    from ppcls.logger import only_warnings

    picture = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "0.png"), picture)
    (folder / "list.txt").write_text(
        "\n".join(f"0.png {n % CLASSES}" for n in range(batch)), encoding="utf-8"
    )
    (folder / "recipe.yaml").write_text(json.dumps(recipe(folder, size, batch, options)), encoding="utf-8")
    images, labels = random_batch(size, batch)
    with only_warnings():
        engine = Engine(load_config(str(folder / "recipe.yaml")))
        run = engine.build_run()
        try_out(run)
        run.parts.loader.close()
        begin_lookahead(run, engine.config, None)
    run.parts.loader = SameBatch(Batch(images, labels, np.arange(batch)))  # type: ignore[assignment]
    call_hooks(run.hooks, "before_train", run)
    start_epoch(run)
    batches = batches_of_epoch(run)

    def step() -> None:
        train_batch(run, next(batches))

    return step


def build_ahead(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the same with the teacher beside the training in any case, also where it is switched off."""
    from ppcls.engine.start import lookahead

    lookahead.pays_beside = lambda *arguments: True  # type: ignore[attr-defined]
    return build_ppcls(size, batch, options, folder)


class SameBatch:
    """Stands in for a loader: compared are steps, not reading."""

    division = None  # the number of processes does not change

    def __init__(self, batch: Any) -> None:
        self.batch = batch
        self.dataset = None

    def __len__(self) -> int:
        return 10**6

    def epoch(self, epoch: int, start_batch: int = 0) -> Any:
        """Yield the batch again and again; its images are put on the device each time."""
        while True:
            self.batch.tensor = None
            yield self.batch


def learn_by_hand(parameters: list[Any]) -> Callable[[Any, Any, Any], None]:
    """Return a function of logits, labels and a teacher's probabilities that updates `parameters`."""
    import paddle
    from paddle.nn import functional as F

    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 100)
    decay = paddle.regularizer.L2Decay(1e-4)
    optimizer = paddle.optimizer.Momentum(schedule, 0.9, parameters, weight_decay=decay)

    def learn(logits: Any, label: Any, target: Any) -> None:
        loss = F.cross_entropy(logits, label)
        loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, "batchmean")
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()
        float(loss)

    return learn


def build_student(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the bare loop without a teacher; the targets are stored."""
    return build_bare(size, batch, {**options, "teacher": False}, folder)


def build_bare(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build what one would write by hand with our networks, with the same settings; return its step."""
    import paddle
    from paddle.nn import functional as F

    from ppcls.arch import create_model
    from ppcls.cpu.memory import keep_freed_memory

    keep_freed_memory()
    student = create_model("ResNet18", class_num=CLASSES)
    teacher = create_model("ResNet34", class_num=CLASSES) if options.get("teacher", True) else None
    if teacher is not None:
        teacher.eval()
    learn = learn_by_hand(student.parameters())
    images, labels = random_batch(size, batch)
    stored = F.softmax(paddle.to_tensor(images.reshape(batch, -1)[:, :CLASSES]) / 4, -1)

    def step() -> None:
        image, label = paddle.to_tensor(images), paddle.to_tensor(labels)
        logits = student(image)
        target = stored
        if teacher is not None:
            with paddle.no_grad():
                target = F.softmax(teacher(image) / 4, -1)
        learn(logits, label, target)

    return step


def build_evaluation(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build a network that is evaluated, by itself or as a program; return its forward pass."""
    import paddle

    from ppcls.arch import create_model
    from ppcls.arch.answering import Answering
    from ppcls.cpu.memory import keep_freed_memory
    from ppcls.teacher import Answer

    keep_freed_memory()
    network = create_model(options["network"])
    network.eval()
    answer = Answer(network, options["network"], Answering(options["engine"]), images=1)
    image = paddle.to_tensor(random_batch(size, batch)[0])

    def step() -> None:
        with paddle.no_grad():
            answer(image).numpy()

    return step


def build_reference(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the networks of a PaddleClas checkout in a loop like that of its engine; return its step."""
    sys.path[:] = [options["checkout"], *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    import paddle
    from paddle.nn import functional as F

    from ppcls.arch import build_model  # all of ppcls here is the checkout's
    from ppcls.utils import logger

    logger.init_logger()

    arch = recipe(folder, size, batch, {})["Arch"]
    for entry in arch["models"]:
        next(iter(entry.values())).update(class_num=arch["class_num"], pretrained=False)
    model = build_model({"Arch": {**arch, "pretrained_list": None}, "Global": {}})
    model.train()
    trained = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    learn = learn_by_hand(trained)
    images, labels = random_batch(size, batch)

    def step() -> None:
        image, label = paddle.to_tensor(images), paddle.to_tensor(labels)
        found = model(image)
        logits, target = found["Student"], F.softmax(found["Teacher"] / 4, -1)
        learn(logits, label, target)

    return step


def build_torch(size: int, batch: int, options: Mapping[str, Any], folder: Path) -> Callable[[], None]:
    """Build the same with torch and torchvision; return its step."""
    import torch
    from torch.nn import functional as F
    from torchvision.models import resnet18, resnet34

    torch.set_num_threads(1)
    student, teacher = resnet18(num_classes=CLASSES), resnet34(num_classes=CLASSES).eval()
    optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    images, labels = random_batch(size, batch)

    def step() -> None:
        image, label = torch.from_numpy(images), torch.from_numpy(labels[:, 0])
        logits = student(image)
        with torch.no_grad():
            target = F.softmax(teacher(image) / 4, -1)
        loss = F.cross_entropy(logits, label)
        loss = loss + 0.9 * 16 * F.kl_div(F.log_softmax(logits / 4, -1), target, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        float(loss)

    return step


def serve(kind: str, options: Mapping[str, Any]) -> None:
    """Build steps and make them, as lines of standard input say, and answer with times."""
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes elsewhere
    os.dup2(2, 1)
    step: Callable[[], None] | None = None
    with tempfile.TemporaryDirectory() as name:
        for line in sys.stdin:
            asked = json.loads(line)
            if "size" in asked:
                step = None  # the networks before are freed first
                folder = Path(name) / str(asked["size"])
                folder.mkdir()
                step = globals()[kind](asked["size"], asked["batch"], options, folder)
                step()
            begin = time.perf_counter(), time.process_time()
            assert step is not None
            step()
            times = time.perf_counter() - begin[0], time.process_time() - begin[1]
            print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))
