"""What the outputs in a store depend on, and how a store differs from what a run needs."""

from __future__ import annotations

import hashlib
import platform
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ppcls import __version__
from ppcls.config import ArchSpec, Recipe, plain
from ppcls.config.arch import WEIGHT_FILES
from ppcls.config.schema import TeacherStoreSpec
from ppcls.data import JoinedLoader, Loader, datasets_of
from ppcls.errors import ConfigError, DataError, WeightsError, show
from ppcls.logger import LOGGER
from ppcls.registry import BACKBONES
from ppcls.teacher.store import Store
from ppcls.teacher.stored import Places
from ppcls.weights import find_file

PROBES = 16  # samples whose files and views are compared
_PLACE = "TeacherStore"
# Options of a network that do not decide what it answers, or are described in another way.
_NOT_ITS_ANSWER = (*WEIGHT_FILES, "frozen_engine", "frozen_precision")
_ABSENT = "not here"


def describe(config: Recipe, loader: Loader | JoinedLoader, stored: list[ArchSpec]) -> dict[str, Any]:
    """Return everything that the stored outputs depend on, as JSON has it."""
    spec = config.TeacherStore or TeacherStoreSpec()
    datasets = datasets_of(loader)
    parts = {part: data for part, data in config.DataLoader.parts.items() if part != "Eval"}
    mixed = any((data.dataset or {}).get("batch_transform_ops") for data in parts.values())
    found: dict[str, Any] = {
        "seed": config.Global.seed,
        "precision": spec.precision,
        "logits": spec.logits,
        "k": spec.k,
        "features": spec.features,
        "networks": {
            network.prefix[:-1]: _network(network, _groups_of(config.arch, network)) for network in stored
        },
        "lists": {},
        "transforms": {},
        "samplers": {},
        "batches": None,
        "AMP": dict(plain(config.AMP)) if config.AMP.use_amp else None,
        "samples": {},
        "versions": _versions(),
    }
    for part, data in parts.items():
        options = dict(plain(data.dataset) or {})
        dataset = datasets[f"DataLoader.{part}.dataset"]
        listed_images = dataset.fingerprint()
        found["lists"][part] = {"images": listed_images.count, "digest": listed_images.digest}
        found["transforms"][part] = {
            name: options.get(name) or [] for name in ("transform_ops", "batch_transform_ops")
        }
        sampler = dict(plain(data.sampler) or {})
        size = sampler.pop("batch_size", None)
        found["samplers"][part] = sampler
        if mixed or isinstance(loader, JoinedLoader):
            share = (loader.labelled if isinstance(loader, JoinedLoader) else loader).share
            found["batches"] = {**(found["batches"] or {"processes": share.world_size}), part: size}
        found["samples"][part] = _probes(dataset, config.Global.seed or 0)
    return found


def _network(spec: ArchSpec, groups: list[ArchSpec]) -> dict[str, Any]:
    precisions = [group.options.get("frozen_precision") for group in [*spec.walk(), *groups]]
    return {
        "options": _options(plain(spec.options)),
        "classes": spec.class_count,
        "frozen_precision": next((precision for precision in precisions if precision), "float32"),
        "weights": ", ".join(_weights(network) for network in spec.walk() if network.has_own_weights),
    }


def _groups_of(arch: ArchSpec, network: ArchSpec) -> list[ArchSpec]:
    """Return the networks of networks that a network is in, from the inside out."""
    around = [group for group in arch.walk() if group.children and network.prefix.startswith(group.prefix)]
    return [group for group in reversed(around) if group.prefix != network.prefix]


def _options(node: Any) -> Any:
    """Return a node, and the nodes inside it, without what does not decide its answers."""
    if isinstance(node, list):
        return [_options(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    name = node.get("name")
    own_file = isinstance(name, str) and name in BACKBONES and BACKBONES.trait(name, "always_frozen")
    left_out = {*_NOT_ITS_ANSWER, *(["path"] if own_file else [])}
    return {key: _options(value) for key, value in node.items() if key not in left_out}


def _weights(spec: ArchSpec) -> str:
    """Identify the weights of a network by the content of their file, or by their address."""
    source = spec.pretrained
    if source is None and spec.children:
        return "of its parts"
    if source is True:
        return "official"
    if source is None:  # a network that comes as a file has its weights in it
        path = Path(str(spec.options.get("path"))).expanduser()
        files = [path] if path.exists() else sorted(path.parent.glob(f"{path.name}.*"))
        return "+".join(_digest(file) for file in files) or _ABSENT
    if "://" in str(source):
        return str(source)
    try:
        return _digest(find_file(str(source), f"{spec.path}.pretrained"))
    except WeightsError:
        return _ABSENT


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _probes(dataset: Any, seed: int) -> dict[str, list[int]]:
    """Return checksums of some samples: of their input, and of the view that the first epoch has of them."""
    found = {}
    for index in np.unique(np.linspace(0, len(dataset) - 1, PROBES).astype(np.int64)).tolist():
        read = dataset.read(index)
        content = read if isinstance(read, bytes) else np.ascontiguousarray(read).tobytes()
        image, _ = dataset.sample(index, 1, seed)
        view = np.ascontiguousarray(image).tobytes()
        found[str(index)] = [zlib.crc32(content), zlib.crc32(view)]
    return found


def _versions() -> dict[str, str]:
    names = {"opencv": "opencv-python-headless", "pillow": "Pillow"}
    found = {"ppcls": __version__, "paddle": paddle.__version__, "numpy": np.__version__}
    for name, package in names.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a build of one's own
            found[name] = "unknown"
    return {**found, "machine": platform.machine()}


# ---------------------------------------------------------------- comparison


def compare(store: Store, made_of: dict[str, Any], places: Places, folder: Path) -> None:
    """Compare a store with what a run needs.

    Raises:
        ConfigError: naming the differences.
    """
    manifest = store.manifest or {}
    there = manifest.get("made_of")
    if not isinstance(there, dict):
        raise DataError(f"{folder}: the manifest does not say what the store was made of")
    there = {"logits": "all", "k": None, **there}
    made_of = dict(made_of)
    before = there.pop("versions", {})
    now = made_of.pop("versions")
    others = [f"{name} {before.get(name)}" for name in now if before.get(name) != now[name]]
    samples = there.pop("samples", {}), made_of.pop("samples")
    absent = _leave_out_absent(made_of, there)
    problems = list(_differences(there, made_of, ""))
    if not problems and manifest.get("rows") != places.rows:
        problems.append(
            f"an epoch has {places.rows} images in its batches, in the store {manifest.get('rows')}"
        )
    if not problems:
        problems += _other_samples(*samples, others)
    if problems:
        shown_first = "\n  ".join(problems[:8]) + (
            f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        )
        raise ConfigError(
            f"{folder} was filled for something else:\n  {shown_first}\n"
            "Set it as it was, or choose another folder for another store",
            path=f"{_PLACE}.path",
        )
    if others:
        LOGGER.warning("%s was filled with other versions: %s", folder, ", ".join(others))
    for name in absent:
        LOGGER.warning(
            "%s: the weights of %s are not here, so whether the store is theirs was not checked", folder, name
        )


def _leave_out_absent(made_of: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Take over the weights of networks whose files are not on this machine; return their names."""
    absent = []
    networks = {}
    for name, network in made_of["networks"].items():
        other = (there.get("networks") or {}).get(name)
        if network["weights"] == _ABSENT and isinstance(other, dict):
            absent.append(name)
            network = {**network, "weights": other.get("weights")}
        networks[name] = network
    made_of["networks"] = networks
    return absent


def _differences(there: Any, here: Any, path: str) -> Iterator[str]:
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        there = dict(enumerate(there))
        here = dict(enumerate(here))
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**here, **there}:
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else str(key))
    elif there != here and not all(value in (None, [], {}) for value in (there, here)):
        kind = " (another file)" if path.endswith(".weights") else ""
        yield f"{path}: {show(here)}, in the store {show(there)}{kind}"


def _other_samples(there: dict[str, Any], here: dict[str, Any], versions: list[str]) -> list[str]:
    problems = []
    for part, samples in here.items():
        for index, (content, view) in samples.items():
            before = there.get(part, {}).get(index)
            if before == [content, view]:
                continue
            if before is None or before[0] != content:
                problems.append(f"DataLoader.{part}: the image of sample {index} changed")
            else:
                why = f"; the store was filled with {', '.join(versions)}" if versions else ""
                problems.append(f"DataLoader.{part}: the transforms make another view of sample {index}{why}")
    return problems
