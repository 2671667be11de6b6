"""What the contact sheet of ``ppcls check-data`` shows: suspicious images first, then some of each class."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from ppcls.data import Dataset, ImageError
from ppcls.data.audit import DataAudit, PartAudit
from ppcls.data.transforms.decode import DecodeImage
from ppcls.report.html import both, escaped, note, page, section

SIDE = 112  # pixels of a small picture
_MOST = 24  # pictures of one kind of suspicion
_CLASSES = 60
_OF_TRAIN = 8
_OF_EVAL = 4
_decode = DecodeImage(reduced=SIDE)
_COMMAND = "<code>ppcls check-data --picture</code>"
_unused = np.random.default_rng(0)
# Kinds of oddities that deserve a look, in this order, with their titles in Chinese.
_ODD = {
    "constant": "单一颜色",
    "tiny": "过小",
    "huge": "过大",
    "turned by EXIF": "EXIF 旋转",
    "transparency": "透明",
    "CMYK": "CMYK",
    "16 bits": "16 位",
    "wrong extension": "扩展名错误",
}


@dataclass
class Tile:
    """One small picture.

    Attributes:
        image: the small picture; None if the file cannot be read.
        lines: what stands below it.
    """

    image: Image.Image | None
    lines: list[str]


@dataclass
class Block:
    """Pictures under one title.

    Attributes:
        title: in English.
        chinese: in Chinese.
        tiles: the pictures.
        left_out: how many more there are.
        remark: a sentence below the title.
    """

    title: str
    chinese: str
    tiles: list[Tile] = field(default_factory=list)
    left_out: int = 0
    remark: str = ""


class _Finder:
    """Small pictures of the samples of all parts, by the names that the findings have."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self._datasets = datasets
        self._places: dict[str, dict[str, int]] = {}

    def tile(self, part: str, path: str, *lines: str) -> Tile:
        """Return the picture of a sample, by the name that :meth:`Dataset.path` gives it."""
        dataset = self._datasets.get(part)
        if dataset is None:
            return Tile(None, [path, *lines])
        if part not in self._places:
            self._places[part] = {dataset.path(index): index for index in range(len(dataset))}
        index = self._places[part].get(path)
        return Tile(None if index is None else small(dataset, index), [path, *lines])

    def training_tile(self, path: str) -> Tile:
        """Return the picture of a sample of training, with labels or without."""
        tiles = [self.tile(part, path, part) for part in ("Train", "UnLabelTrain") if part in self._datasets]
        return next((tile for tile in tiles if tile.image is not None), Tile(None, [path]))

    def label(self, part: str, path: str) -> int:
        """Return the class of a sample."""
        return self._datasets[part].label(self._places[part][path])


def small(dataset: Dataset, index: int) -> Image.Image | None:
    """Return a small picture of a sample, not larger than `SIDE`; None if it cannot be read."""
    try:
        content = dataset.read(index)
        pixels = content if getattr(content, "ndim", 1) == 3 else _decode(content, _unused)
    except ImageError:
        return None
    array = np.ascontiguousarray(pixels)
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
    if max(picture.size) < SIDE // 2:  # pixels of tiny images stay visible
        factor = SIDE // max(picture.size)
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((SIDE, SIDE))
    return picture


def contact_sheet(found: DataAudit) -> list[Block]:
    """Return what is suspicious, the worst first, and then images of each class.

    Args:
        found: the findings, with their datasets.
    """
    finder = _Finder(found.datasets)
    blocks = [*_in_both(found, finder)]
    for part in found.parts:
        blocks += _of_part(part, finder, found.class_names)
    return [*blocks, *_classes(found)]


def _shown(block: Block, every: Sequence[Any], tiles: Iterable[Tile]) -> list[Block]:
    """Return the block with its pictures, or nothing if there are none."""
    block.tiles = list(tiles)
    block.left_out = len(every) - min(len(every), _MOST)
    return [block] if every else []


def _in_both(found: DataAudit, finder: _Finder) -> list[Block]:
    remark = "The score of an evaluation will be too good, because the network has seen these images."
    equal = Block("In Eval and in training, byte for byte", "验证集与训练集重复(逐字节)", remark=remark)
    near = Block("In Eval and nearly the same in training", "验证集与训练集近似重复", remark=remark)
    pairs = found.leaked[:_MOST]
    blocks = _shown(equal, found.leaked, (tile for pair in pairs for tile in _pair(finder, *pair)))
    nearly = found.near[:_MOST]
    tiles = (tile for one, other, bits in nearly for tile in _pair(finder, one, other, f"{bits} of 255 bits"))
    return blocks + _shown(near, found.near, tiles)


def _pair(finder: _Finder, one: str, other: str, *lines: str) -> list[Tile]:
    return [finder.tile("Eval", one, "Eval", *lines), finder.training_tile(other)]


def _of_part(part: PartAudit, finder: _Finder, names: list[str] | None) -> list[Block]:
    where = part.part
    blocks = []
    for title, chinese, files in (
        ("cannot be read", "无法读取", part.unreadable),
        ("a transform fails", "变换失败", part.failed),
    ):
        tiles = (finder.tile(where, path, why) for path, why in list(files.items())[:_MOST])
        blocks += _shown(Block(f"{where}: {title}", f"{where}：{chinese}"), list(files), tiles)
    two = Block(f"{where}: the same file with another label", f"{where}：同一文件有不同标签")
    tiles = (
        tile
        for pair in part.contradictions[:_MOST]
        for tile in (_labelled(finder, where, path, names) for path in pair)
    )
    blocks += _shown(two, part.contradictions, tiles)
    for kind, chinese in _ODD.items():
        details = part.odd.get(kind, {})
        if details and len(details) < part.images:
            tiles = (finder.tile(where, path, why) for path, why in list(details.items())[:_MOST])
            blocks += _shown(Block(f"{where}: {kind}", f"{where}：{chinese}"), list(details), tiles)
    return blocks


def _labelled(finder: _Finder, part: str, path: str, names: list[str] | None) -> Tile:
    tile = finder.tile(part, path)
    tile.lines.append(_title(finder.label(part, path), names))
    return tile


def _title(label: int, names: list[str] | None) -> str:
    return f"{label} {names[label]}" if names is not None and label < len(names) else f"class {label}"


def _classes(found: DataAudit) -> list[Block]:
    """Return some images of each class: of all classes, or of the rarest of many."""
    labelled = [part.part for part in found.parts if part.class_images]
    by_class = {
        part: _indices(found.datasets[part], found.parts)
        for part in ("Train", "Eval")
        if part in found.datasets and part in labelled
    }
    counts = {part: [len(indices) for indices in lists] for part, lists in by_class.items()}
    count = max((len(lists) for lists in by_class.values()), default=0)
    total = [sum(lists[label] for lists in counts.values()) for label in range(count)]
    shown = sorted(sorted(range(count), key=lambda label: total[label])[:_CLASSES])
    blocks = []
    titles = ("Train", _OF_TRAIN), ("Eval", _OF_EVAL)
    for label in shown:
        title = _title(label, found.class_names)
        numbers = ", ".join(f"{part} {lists[label]}" for part, lists in counts.items())
        block = Block(f"{title}: {numbers}", f"{title}：{numbers}")
        for part, most in titles:
            if part not in by_class:
                continue
            indices = by_class[part][label]
            step = max(len(indices) / most, 1)
            for place in range(min(most, len(indices))):
                index = indices[int(place * step)]
                dataset = found.datasets[part]
                block.tiles.append(Tile(small(dataset, index), [dataset.path(index), part]))
        blocks.append(block)
    if count > len(shown) and blocks:
        blocks[0].remark = f"The {len(shown)} classes with the fewest images, of {count}."
    return blocks


def _indices(dataset: Dataset, parts: Sequence[PartAudit]) -> list[list[int]]:
    """Return the samples of each class."""
    count = max(len(part.class_images) for part in parts)
    lists: list[list[int]] = [[] for _ in range(count)]
    for index in range(len(dataset)):
        if dataset.label(index) < count:
            lists[dataset.label(index)].append(index)
    return lists


# ---------------------------------------------------------------------- the page


def sheet_page(blocks: Sequence[Block], source: str, summary: str) -> bytes:
    """Return the contact sheet as a page in one file.

    Args:
        blocks: what it shows.
        source: the recipe.
        summary: the findings as text.
    """
    content = [
        section(both("Findings", "检查结果"), f'<pre class="wrap">{escaped(summary)}</pre>', name="findings")
    ]
    for place, block in enumerate(blocks):
        more = note(both(f"and {block.left_out} more", f"另有 {block.left_out} 项")) if block.left_out else ""
        remark = note(escaped(block.remark)) if block.remark else ""
        tiles = "".join(map(_tile, block.tiles)) or note(both("no images", "没有图片"))
        body = f'{remark}<div class="images">{tiles}</div>{more}'
        title = both(escaped(block.title), escaped(block.chinese))
        content.append(section(title, body, long=True, name=f"block{place}"))
    text = page(
        f"{source}: data",
        both("Images of a recipe", "配方的数据"),
        escaped(source),
        content,
        both(f"Made by {_COMMAND}.", f"由 {_COMMAND} 生成。"),
    )
    return text.encode()


def _tile(tile: Tile) -> str:
    name = escaped(tile.lines[0])
    lines = [f'<div class="file" title="{name}"><bdi>{name}</bdi></div>', *map(escaped, tile.lines[1:])]
    picture = both("cannot be read", "无法读取")
    frame = f'<div class="none">{picture}</div>'
    if tile.image is not None:
        frame = f'<img src="{_encoded(tile.image)}" alt="" loading="lazy">'
    return f'<div class="image">{frame}{"<br>".join(lines[:1])}{"<br>".join(lines[1:])}</div>'


def _encoded(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
