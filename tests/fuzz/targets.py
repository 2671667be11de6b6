"""The readers that are fuzzed: weights of every format, checkpoints, recipes, descriptions of exports."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import pickle
import pickletools
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from support import distilled, tiny_recipe

from fuzz.harness import Target
from fuzz.mutate import mutate_bytes, mutate_pickle, mutate_tree, random_pickle
from ppcls.weights import has_torch_layout, read_params

TESTS = Path(__file__).parents[1]
# What a reader may make of a file, in bytes of numbers: bfloat16 doubles, storages may be shared by tensors.
GROWTH, SLACK = 8, 1 << 20


class WrongAnswerError(Exception):
    """The product accepted an input and made nonsense of it."""


def _weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.standard_normal((2, 3, 3, 3)).astype(np.float32),
        "conv.bias": np.zeros(2, np.float32),
        "bn.steps": np.array(7),
        "half": np.ones((0, 4), np.float16),
    }


class Weights:
    """Files of parameters of one format.

    Args:
        suffix: of the files.
        seeds: whole files to begin with.
        make: makes an input in a way that fits the format; used for half of them.
    """

    def __init__(
        self,
        name: str,
        suffix: str,
        folder: Path,
        seeds: list[bytes],
        make: Callable[[random.Random, bytes], bytes] | None = None,
    ) -> None:
        self.name, self._seeds, self._make = name, seeds, make
        self._file = folder / f"input{suffix}"

    def make(self, dice: random.Random) -> bytes:
        """Return a changed file."""
        seed = dice.choice(self._seeds)
        if self._make is not None and dice.random() < 0.5:
            return self._make(dice, seed)
        return mutate_bytes(dice, seed, self._seeds)

    def read(self, content: bytes) -> None:
        """Read the file as every command does."""
        self._file.write_bytes(content)
        found = read_params(self._file)
        has_torch_layout(self._file)
        size = 0
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, np.ndarray) or not value.dtype.isnative:
                raise WrongAnswerError(f"{name!r}: {type(value)}")
            size += value.nbytes
            value.copy().reshape(-1)[:1] += value.dtype.type(1)
        if size > GROWTH * len(content) + SLACK:
            raise WrongAnswerError(f"{size} bytes of numbers from a file of {len(content)}")


def _pdparams_seeds() -> list[bytes]:
    weights = _weights()
    nested = {"StructuredToParameterName@@": {"a": "b"}, **weights, "t": ("name", np.ones(3, np.float32))}
    seeds = [pickle.dumps(weights, protocol=protocol) for protocol in (0, 1, 2, 3, 4, 5)]
    return [*seeds, pickle.dumps(nested, protocol=2), pickle.dumps(nested, protocol=4)]


def _other_pickle(dice: random.Random, content: bytes) -> bytes:
    return random_pickle(dice) if dice.random() < 0.2 else mutate_pickle(dice, content)


def _torch_seeds(name: str) -> list[bytes]:
    return [(TESTS / "weights" / "data" / file).read_bytes() for file in ((name,) if name else ())]


def _rezipped(dice: random.Random, content: bytes) -> bytes:
    """Change a member of a zip archive and pack it anew, so that its checksum fits."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        entries = source.infolist()
        chosen = dice.choice(
            [entry.filename for entry in entries if entry.filename.endswith("data.pkl")] or [""]
        )
        if dice.random() < 0.3:
            chosen = dice.choice(entries).filename
        how = dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
        for entry in entries:
            data = source.read(entry)
            if entry.filename == chosen:
                data = _other_pickle(dice, data) if chosen.endswith(".pkl") else mutate_bytes(dice, data)
            target.writestr(entry.filename, data, how)
    packed = out.getvalue()
    return mutate_bytes(dice, packed) if dice.random() < 0.2 else packed


def _old_torch(dice: random.Random, content: bytes) -> bytes:
    """Change one of the five pickles that stand one behind the other before the numbers."""
    stream, ends = io.BytesIO(content), [0]
    for _ in range(5):
        for _step in pickletools.genops(stream):
            pass
        ends.append(stream.tell())
    which = dice.choice((0, 1, 2, 3, 3, 3, 4))
    start, end = ends[which : which + 2]
    return content[:start] + _other_pickle(dice, content[start:end]) + content[end:]


def _safetensors_seed() -> bytes:
    import safetensors.numpy

    return safetensors.numpy.save(_weights(), {"format": "pt"})


def _new_header(dice: random.Random, content: bytes) -> bytes:
    """Change the header as a tree, or name another type, and give it its right length."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if dice.random() < 0.3:
        for entry in header.values():
            if "dtype" in entry and dice.random() < 0.5:
                entry["dtype"] = dice.choice(
                    ("BF16", "F8_E4M3", "F16", "I16", "U16", "U32", "C64", "F4", "x", None)
                )
    else:
        header = mutate_tree(dice, header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if dice.random() < 0.1:
        text = mutate_bytes(dice, text)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


class Checkpoints:
    """A run's folder in which one file of its newest checkpoint is damaged: the one before must be found."""

    name = "checkpoints"

    def __init__(self, folder: Path) -> None:
        from ppcls.engine.checkpoint import SUFFIXES, Checkpointer
        from ppcls.run_states import Progress

        self._folder = folder / "run"
        self._folder.mkdir()
        tensors = {name: value for name, value in _weights().items() if value.size}
        progress = Progress(
            epoch=3, step=20, best={"top1": 0.5}, schedule={"last_epoch": 20}, meters=[{"l": [1.0, 2.0]}]
        )
        for tag in ("latest", "epoch_2"):
            Checkpointer(self._folder).save(tag, tensors, tensors, progress, tensors)
        config = {"Global": {"epochs": 5}, "Arch": {"name": "resnet8"}}
        (self._folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        names = [*(f"latest{suffix}" for suffix in SUFFIXES), *(["latest.pdstates"] * 6), "config.yaml"]
        self._names = [name for name in names if (self._folder / name).is_file()]
        self._whole = {path.name: path.read_bytes() for path in self._folder.iterdir()}

    def make(self, dice: random.Random) -> bytes:
        """Return the name of a file, and its damaged content."""
        name = dice.choice(self._names)
        whole = self._whole[name]
        if name.endswith(".pdstates") and dice.random() < 0.6:
            content = json.dumps(mutate_tree(dice, json.loads(whole)), indent=dice.choice((1, None))).encode()
        else:
            content = mutate_bytes(dice, whole, list(self._whole.values()))
        return name.encode() + b"\n" + content

    def read(self, content: bytes) -> None:
        """Look for the newest whole checkpoint, as ``--resume auto`` does, and load the damaged one."""
        from ppcls.engine.checkpoint import Checkpointer
        from ppcls.engine.checkpoint.resume import find_checkpoint, is_finished

        name, _, damaged = content.partition(b"\n")
        file = self._folder / name.decode()
        try:
            file.write_bytes(damaged)
            found = find_checkpoint("auto", self._folder)
            if found is None or found.progress.step != 20 or found.progress.epoch != 3:
                raise WrongAnswerError(f"--resume auto takes {found and found.progress}")
            is_finished(found, 5)
            Checkpointer(self._folder).load("latest")
        finally:
            file.write_bytes(self._whole[file.name])


class Recipes:
    """Changed recipes through `load_config`, which checks all that `ppcls validate` does."""

    name = "recipes"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "recipe.yaml"
        plain = tiny_recipe(folder, folder / "out")
        pair = {"model_name_pairs": [["Student", "Teacher"]]}
        self._trees = [
            plain,
            distilled(tiny_recipe(folder, folder / "out"), DistillationKLDivLoss=pair),
            distilled(
                tiny_recipe(folder, folder / "out"),
                DistillationGTCELoss={"model_names": ["Student"]},
                DistillationPairLoss={**pair, "base_loss_name": "DISTLoss"},
            ),
        ]
        self._packaged = sorted((TESTS.parent / "configs").rglob("*.yaml"))
        self.read(b"#train\n" + json.dumps(plain).encode())  # imports Paddle, whose memory is not the inputs'

    def make(self, dice: random.Random) -> bytes:
        """Return a recipe; comments at its beginning are the mode and what follows ``-o``."""
        tree = dice.choice(self._trees)
        if dice.random() < 0.3:
            tree = yaml.safe_load(dice.choice(self._packaged).read_text(encoding="utf-8"))
            tree.pop("_base_", None)
        lines = [f"#{dice.choice(('train', 'train', 'eval', 'infer', 'export'))}"]
        if dice.random() < 0.15:
            lines.append("#" + _override(dice))
        tree = mutate_tree(dice, tree, self._trees)
        if dice.random() < 0.5:
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "replace")
        else:
            text = json.dumps(tree).encode()
        if dice.random() < 0.25:
            text = mutate_bytes(dice, text)
        return "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n" + text

    def read(self, content: bytes) -> None:
        """Check the recipe."""
        from ppcls.config import load_config

        first, _, rest = content.partition(b"\n")
        overrides = []
        if rest.startswith(b"#"):
            line, _, rest = rest.partition(b"\n")
            overrides = [line[1:].decode("utf-8", "surrogateescape")]
        self._file.write_bytes(rest)
        load_config(self._file, overrides, first[1:].decode())


def _override(dice: random.Random) -> str:
    key = dice.choice(
        (
            "Global.epochs",
            "Arch.name",
            "Arch.models.0.Teacher",
            "Loss.Train.0",
            "a.b",
            "",
            "Arch[0]",
            "..",
            "DataLoader.Train.loader.num_workers",
            "Global." * 60,
        )
    )
    value = dice.choice(
        (
            "1",
            "[",
            "{",
            "null",
            "${Global.epochs}",
            "9" * 300,
            "[" * 60 + "]" * 60,
            "{true: 1}",
            "!!int x",
            "&a [*a]",
            "\x00",
            "'",
            "1e400",
            "x: y",
        )
    )
    return f"{key}{dice.choice(('=', '=', '=', ''))}{value}"


class Descriptions:
    """Changed ``inference.yml`` in an exported folder, through the Predictor."""

    name = "inference.yml"

    def __init__(self, folder: Path) -> None:
        import paddle
        from paddle import nn

        from ppcls.engine.export import export_network

        class Net(nn.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3 * 8 * 8, 4)

            def forward(self, x: paddle.Tensor) -> paddle.Tensor:
                return self.fc(x.flatten(1))

        description = {
            "Global": {"model_name": "Net", "class_num": 4},
            "PreProcess": {
                "transform_ops": [
                    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
                    {"ResizeImage": {"resize_short": 10}},
                    {"CropImage": {"size": 8}},
                    {
                        "NormalizeImage": {
                            "scale": "1.0/255.0",
                            "mean": [0.5] * 3,
                            "std": [0.2] * 3,
                            "order": "",
                        }
                    },
                    {"ToCHWImage": None},
                ]
            },
            "PostProcess": {"name": "Topk", "topk": 2},
        }
        self._folder = folder / "export"
        export_network(Net(), self._folder, (3, 8, 8), inference_yml=description)
        self._file = self._folder / "inference.yml"
        self._whole = self._file.read_bytes()
        self._trees = [yaml.safe_load(self._whole), {**yaml.safe_load(self._whole), **description}]
        self._image = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)

    def make(self, dice: random.Random) -> bytes:
        """Return a description."""
        if dice.random() < 0.3:
            return mutate_bytes(dice, self._whole)
        tree = mutate_tree(dice, dice.choice(self._trees), self._trees)
        return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "replace")

    def read(self, content: bytes) -> None:
        """Make a Predictor and let it answer."""
        from ppcls.deploy import Predictor

        self._file.write_bytes(content)
        (found,) = Predictor(self._folder, device="cpu", threads=1).predict(self._image)
        if not all(np.isfinite(score) for score in found["scores"]):
            raise WrongAnswerError(f"scores {found['scores']}")


def make_targets(folder: Path, names: list[str] | None = None) -> list[Target]:
    """Return the targets by name, all by default, each with a folder of its own below `folder`."""
    logging.getLogger("ppcls").setLevel(logging.CRITICAL)
    makers: dict[str, Callable[[Path], Target]] = {
        "pdparams": lambda place: Weights("pdparams", ".pdparams", place, _pdparams_seeds(), _other_pickle),
        "safetensors": lambda place: Weights(
            "safetensors", ".safetensors", place, [_safetensors_seed()], _new_header
        ),
        "torch-zip": lambda place: Weights(
            "torch-zip",
            ".pth",
            place,
            _torch_seeds("torch_zip.pth") + _torch_seeds("torch_checkpoint.pth"),
            _rezipped,
        ),
        "torch-old": lambda place: Weights(
            "torch-old", ".pth", place, _torch_seeds("torch_old.pth"), _old_torch
        ),
        "checkpoints": Checkpoints,
        "recipes": Recipes,
        "inference.yml": Descriptions,
    }
    unknown = set(names or ()) - makers.keys()
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    targets = []
    for name in names or makers:
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        with contextlib.chdir(place) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
            targets.append(makers[name](place))
    return targets
