"""Pictures of pages of text in four orientations, drawn from Debian's fonts and licence texts.

A page is set in one to three columns, then turned, and then spoiled as scanners and cameras do: tilt and
perspective, a cut-off part, uneven light, blur, noise, JPEG. Texts and fonts of the parts `train`, `val` and
`test` differ. Everything about a page depends on (seed, part, number) alone.
"""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

#: How a page lies; number k is the page after k quarter turns to the left (`numpy.rot90(page, k)`).
TURNS = ("upright", "turned_left", "upside_down", "turned_right")
LICENCES = Path("/usr/share/common-licenses")
TEXTS = {
    "train": ("GPL-1", "GPL-2", "GPL-3", "LGPL-2", "LGPL-2.1", "LGPL-3"),
    "val": ("Apache-2.0", "Artistic", "BSD"),
    "test": ("CC0-1.0", "GFDL-1.2", "GFDL-1.3", "MPL-1.1", "MPL-2.0"),
}
#: Debian packages of fonts, and the files of each that are used.
FONTS = {
    "train": {
        "fonts-dejavu-core": "DejaVuS*.ttf",
        "fonts-liberation": "Liberation*.ttf",
        "fonts-crosextra-carlito": "Carlito*.ttf",
        "fonts-crosextra-caladea": "Caladea*.ttf",
    },
    "val": {"fonts-cabin": "Cabin*.otf", "fonts-oldstandard": "OldStandard*.ttf"},
    "test": {
        "fonts-ebgaramond": "EBGaramond12*.otf",
        "fonts-open-sans": "OpenSans-*.ttf",
        "fonts-inconsolata": "Inconsolata*.otf",
    },
}
INSTALLED = Path("/usr/share/fonts")
_DPI = 80  # of a page before it is photographed
_SHORT = 400  # pixels of the shorter side of a finished picture

Box = tuple[int, int, int, int]


def find_fonts(cache: Path) -> dict[str, list[Path]]:
    """Return the font files of each part, from the installed packages, or unpacked below `cache`.

    Raises:
        SystemExit: with the command that installs what is missing, if it cannot be fetched.
    """
    found: dict[str, list[Path]] = {}
    for part, packages in FONTS.items():
        found[part] = []
        for package, pattern in packages.items():
            files = sorted(INSTALLED.rglob(pattern)) if INSTALLED.is_dir() else []
            found[part] += files or sorted(_fetched(package, cache).rglob(pattern))
    return found


def _fetched(package: str, cache: Path) -> Path:
    """Return the folder with the content of a Debian package, without installing it."""
    folder = cache / package
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as temporary:
        try:
            subprocess.run(["apt-get", "download", package], cwd=temporary, check=True, capture_output=True)
            archive = next(Path(temporary).glob("*.deb"))
            content = Path(temporary) / "content"
            subprocess.run(["dpkg-deb", "-x", str(archive), str(content)], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError, StopIteration):
            names = " ".join(name for packages in FONTS.values() for name in packages)
            raise SystemExit(f"fonts of {package} are missing: apt-get install {names}") from None
        content.rename(folder)
    return folder


def read_texts(part: str, folder: Path = LICENCES) -> list[list[str]]:
    """Return the paragraphs of the licences of a part, each a list of words.

    Raises:
        SystemExit: if a licence is missing.
    """
    paragraphs = []
    for name in TEXTS[part]:
        file = folder / name
        if not file.is_file():
            raise SystemExit(f"{file} is missing; Debian's package base-files has it")
        parts = re.split(r"\n\s*\n", file.read_text(encoding="utf-8", errors="replace"))
        paragraphs += [words for words in map(str.split, parts) if len(words) > 3]
    return paragraphs


def page(
    part: str, number: int, seed: int, fonts: Sequence[Path], texts: list[list[str]]
) -> tuple[bytes, int]:
    """Return the JPEG file of a page, and which of `TURNS` it has; these alternate.

    Args:
        part: name of the part that it belongs to, as a seed.
        number: of the page in it.
        seed: of all pages.
        fonts: files of the part.
        texts: paragraphs of the part.
    """
    rng = random.Random(f"{seed} {part} {number}")
    turn = number % len(TURNS)
    picture = photograph(draw_page(texts, fonts, rng).rotate(90 * turn, expand=True), rng)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=rng.randint(25, 92))
    return stream.getvalue(), turn


def draw_page(texts: list[list[str]], fonts: Sequence[Path], rng: random.Random) -> Image.Image:
    """Return an upright page, grey (mode L), at 80 dots per inch."""
    width, height = rng.choice([(661, 935)] * 4 + [(935, 661), (680, 880), (496, 701), (400, 880)])
    paper, ink = rng.randint(225, 255), rng.randint(0, 70)
    if rng.random() < 0.04:
        paper, ink = ink, paper
    image = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(image)
    points = rng.choice([8, 9, 10, 10, 11, 11, 12, 12, 14, 17, 22])
    body = _font(rng.choice(fonts), points)
    title = _font(rng.choice(fonts), points * rng.uniform(1.3, 2.5))
    columns = rng.choice([1, 1, 1, 2, 2, 3]) if points < 13 else 1
    margin = round(width * rng.uniform(0.05, 0.14))
    gap = round(points * 2.2)
    column = (width - 2 * margin - (columns - 1) * gap) // columns
    start = rng.randrange(len(texts))
    source = (texts[(start + step) % len(texts)] for step in range(100_000))
    end = height - margin - (round(height * rng.uniform(0, 0.4)) if rng.random() < 0.2 else 0)
    leading, justify = rng.uniform(1.1, 1.6), rng.random() < 0.5
    for place in range(columns):
        left = margin + place * (column + gap)
        box = (left, margin, left + column, end)
        _fill_column(draw, box, source, body, title, leading=leading, justify=justify, ink=ink, rng=rng)
    if rng.random() < 0.5:  # the number of the page, below or above
        centre = margin / 2 if rng.random() < 0.3 else height - margin / 2
        draw.text((width / 2, centre), str(rng.randint(1, 400)), ink, body, anchor="mm")
    return image


def _font(file: Path, points: float) -> ImageFont.FreeTypeFont:
    # The simple layout gives the same page whether or not Pillow finds the library for complex scripts.
    return ImageFont.truetype(str(file), round(points * _DPI / 72), layout_engine=ImageFont.Layout.BASIC)


def _fill_column(
    draw: ImageDraw.ImageDraw,
    box: Box,
    source: Iterator[list[str]],
    body: ImageFont.FreeTypeFont,
    title: ImageFont.FreeTypeFont,
    *,
    leading: float,
    justify: bool,
    ink: int,
    rng: random.Random,
) -> None:
    left, top, right, bottom = box
    step = round(body.size * leading)
    y = float(top)
    while y + step < bottom:
        kind = rng.random()
        if kind < 0.12:  # a heading
            words = next(source)[: rng.randint(2, 6)]
            line = next(_lines(draw, words, title, right - left))
            draw.text((left, y), " ".join(line), ink, title)
            y += title.size * 1.5
        elif kind < 0.18 and y + 6 * step < bottom:  # a picture
            tall = rng.randint(4, 9) * step
            draw.rectangle((left, y, right, min(y + tall, bottom)), rng.randint(60, 220))
            y += tall + step
        indent = round(body.size * rng.choice([0, 0, 1.5]))
        for number, line in enumerate(_lines(draw, next(source), body, right - left - indent)):
            if y + step > bottom:
                return
            first = left + (indent if number == 0 else 0)
            _draw_line(draw, line, (first, y), right - first if justify else None, body, ink)
            y += step
        y += step * rng.choice([0, 0.5, 1])


def _lines(
    draw: ImageDraw.ImageDraw, words: list[str], font: ImageFont.FreeTypeFont, width: int
) -> Iterator[list[str]]:
    line: list[str] = []
    used = 0.0
    for word in words:
        size = draw.textlength(f"{word} ", font)
        if line and used + size > width:
            yield line
            line, used = [], 0.0
        line.append(word)
        used += size
    yield line


def _draw_line(
    draw: ImageDraw.ImageDraw,
    words: list[str],
    place: tuple[float, float],
    width: float | None,
    font: ImageFont.FreeTypeFont,
    ink: int,
) -> None:
    """Draw a line of text; with `width` stretched to it, unless too few words would be torn apart."""
    x, y = place
    used = draw.textlength(" ".join(words), font)
    if width is None or len(words) < 3 or not 0.75 * width < used <= width:
        draw.text(place, " ".join(words), ink, font)
        return
    space = (width - used) / (len(words) - 1)
    for word in words:
        draw.text((x, y), word, ink, font)
        x += draw.textlength(f"{word} ", font) + space


def photograph(paper: Image.Image, rng: random.Random) -> Image.Image:
    """Return a page (mode L) as a scanner or camera would give it: RGB, shorter side 400 pixels."""
    camera = rng.random() < 0.5
    width, height = paper.size
    desk = rng.randint(20, 200) if camera else rng.choice([0, 255])
    left, top, right, bottom = _frame(rng, camera)
    tilt = np.deg2rad(rng.gauss(0, 2.5 if camera else 1.0))
    depth = 0.06 if camera else 0.0
    corners = []
    for x, y in ((left, top), (left, bottom), (right, bottom), (right, top)):
        x, y = x - 0.5 + rng.uniform(-depth, depth), y - 0.5 + rng.uniform(-depth, depth)
        across, down = x * width, y * height
        corners += [
            width / 2 + across * np.cos(tilt) - down * np.sin(tilt),
            height / 2 + across * np.sin(tilt) + down * np.cos(tilt),
        ]
    shape = ((right - left) * width, (bottom - top) * height)
    factor = 1.5 * _SHORT / min(shape)
    size = (round(shape[0] * factor), round(shape[1] * factor))
    quad = _perspective(corners, size)
    seen = paper.transform(size, Image.Transform.PERSPECTIVE, quad, Image.Resampling.BILINEAR, fillcolor=desk)
    seen = seen.resize((round(size[0] / 1.5), round(size[1] / 1.5)), Image.Resampling.BILINEAR)
    return _spoiled(seen, rng, camera)


def _frame(rng: random.Random, camera: bool) -> tuple[float, float, float, float]:
    """Return what is seen of the page, as shares of its width and height: left, top, right, bottom."""
    if rng.random() < 0.3:  # a part of it
        width, height = rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9)
        left, top = rng.uniform(0.1, 0.9) * (1 - width), rng.uniform(0.1, 0.9) * (1 - height)
        return left, top, left + width, top + height
    border = 0.12 if camera else 0.01
    return (
        -rng.uniform(0, border),
        -rng.uniform(0, border),
        1 + rng.uniform(0, border),
        1 + rng.uniform(0, border),
    )


def _perspective(corners: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Return the eight numbers of the map from a picture of `size` to `corners` of the page.

    Args:
        corners: x, y of upper left, lower left, lower right, upper right.
        size: width and height.
    """
    target = [(0, 0), (0, size[1]), (size[0], size[1]), (size[0], 0)]
    rows = []
    for (x, y), u, v in zip(target, corners[0::2], corners[1::2], strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return [float(value) for value in np.linalg.solve(np.array(rows, float), np.array(corners, float))]


def _spoiled(seen: Image.Image, rng: random.Random, camera: bool) -> Image.Image:
    """Return a grey picture with blur, uneven and coloured light, and noise, in RGB."""
    seen = seen.filter(ImageFilter.GaussianBlur(rng.choice([0, 0, 0.4, 0.8, 1.2])))
    noise = np.random.default_rng(rng.randrange(2**32))
    pixels = np.asarray(seen, np.float32)[..., None]
    if camera:
        down, across = np.linspace(-1, 1, pixels.shape[0]), np.linspace(-1, 1, pixels.shape[1])
        light = 1 + rng.uniform(-0.3, 0.3) * down[:, None] + rng.uniform(-0.3, 0.3) * across[None]
        pixels = pixels * light[..., None].astype(np.float32) * rng.uniform(0.6, 1.05)
        pixels = pixels * np.array([rng.uniform(0.85, 1.0) for _ in range(3)], np.float32)
    pixels = pixels + noise.normal(0, rng.choice([0, 3, 6, 12, 20]), pixels.shape).astype(np.float32)
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8), "RGB")


def write_pages(
    folder: Path, part: str, numbers: range, seed: int, fonts: Sequence[Path], texts: list[list[str]]
) -> list[str]:
    """Write pages that are not there yet; return a line `path orientation` for each."""
    lines = []
    (folder / part).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        name = f"{part}/{number:05d}.jpg"
        lines.append(f"{name} {TURNS[number % len(TURNS)]}")
        if not (folder / name).exists():
            content, _ = page(part, number, seed, fonts, texts)
            unfinished = folder / f"{name}.part"
            unfinished.write_bytes(content)
            os.replace(unfinished, folder / name)
    return lines
