"""What tests of all networks share: recorded names, shapes and logits, and which networks are quick."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import paddle

import ppcls
from ppcls.registry import BACKBONES

DATA = Path(__file__).parent / "data"
KEYS = {}  # {network: {parameter: shape}} of the official weights, 1000 classes
for path in sorted(DATA.glob("arch_keys*.json.gz")):
    KEYS |= json.loads(gzip.decompress(path.read_bytes()))
LOGITS = np.load(DATA / "arch_logits.npz")  # the first 64 logits, weights by `fill`


# What `ppcls models` prints; building a network only to count takes long, and there are hundreds.
SIZES = json.loads(resources.files("ppcls.arch").joinpath("sizes.json").read_text("utf-8"))


def fill(name, shape):
    """The value of a tensor as a function of its name alone, so that no weights need storing."""
    rng, leaf = np.random.default_rng(zlib.crc32(name.encode())), name.rsplit(".", 1)[-1]
    if leaf == "_variance":
        values = rng.uniform(0.5, 1.5, shape)
    elif leaf == "_mean":
        values = rng.standard_normal(shape) * 0.1
    elif len(shape) == 4:
        values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    elif len(shape) == 2:
        values = rng.standard_normal(shape) * np.sqrt(1.0 / shape[0])
    elif leaf == "weight":
        values = rng.uniform(0.5, 1.0, shape)
    else:
        values = rng.standard_normal(shape) * 0.1
    return values.astype("float32")


def filled(name, **options):
    """A network in eval mode with values by `fill`; integer tensors keep theirs."""
    net = ppcls.create_model(name, **options)
    values = {
        key: fill(key, tuple(value.shape))
        for key, value in net.state_dict().items()
        if "float" in str(value.dtype)
    }
    net.set_state_dict(values)
    net.eval()
    return net


@cache
def size(name):
    """The number of values in a network's tensors; running statistics may be left out."""
    shapes = KEYS.get(name)
    if shapes is None and name in SIZES:
        return SIZES[name]["parameters"]
    if shapes is None:
        with paddle.LazyGuard():
            shapes = {key: value.shape for key, value in ppcls.create_model(name).state_dict().items()}
    return sum(math.prod(shape) for shape in shapes.values())


def smallest_of_families():
    """The smallest network of each family; only recorded ones count where there are some."""
    families = {}
    for name in ppcls.list_models():
        families.setdefault(BACKBONES[name].__module__, []).append(name)
    return [min([name for name in names if name in KEYS] or names, key=size) for names in families.values()]


SMALLEST = smallest_of_families()


def side(name):
    """The smallest sensible image of a network; a name that ends with a number says its own."""
    fixed = re.search(r"_(\d{3})$", name)
    if fixed and not name.startswith("SwinTransformer"):  # takes any size
        return int(fixed.group(1))
    return 16 if name.startswith(("resnet", "wrn")) else 64


def images(name, count=2, seed=1):
    """Random images of that size."""
    shape = (count, 3, side(name), side(name))
    return paddle.to_tensor(np.random.default_rng(seed).standard_normal(shape).astype("float32"))
