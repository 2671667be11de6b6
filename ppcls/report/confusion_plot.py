"""A picture of a confusion matrix, readable with ten classes and with a thousand."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcls.errors import ConfigError
from ppcls.logger import LOGGER

_DPI = 100
_NAMED = 200  # with more classes, names would be smaller than letters can be
_COUNTED = 20  # with more classes, numbers do not fit into cells
_LONGEST = 24  # letters of a name
# Fonts with Chinese, Japanese and Korean letters, as systems name them; matplotlib's own has none.
_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "PingFang HK",
    "Hiragino Sans GB",
    "Heiti TC",
    "IPAexGothic",
    "Arial Unicode MS",
)


def require_matplotlib(where: str) -> None:
    """Check that matplotlib is installed, before any work is done.

    Raises:
        ConfigError: naming the extra.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{where}: matplotlib is not installed; pip install 'ppcls[report]'") from error


def draw_confusion(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Return a PNG with the share of each true class (rows) that was predicted as each class (columns).

    Up to 200 classes are named along the axes, and up to 20 have their counts in the cells; with more classes
    the axes show numbers. A name with letters that none of the fonts has is replaced by the number.

    Args:
        matrix: number of images, int [C, C]; rows are true classes.
        names: names of the classes.
    """
    from matplotlib import colors, rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = len(matrix)
    cell = _cell_pixels(classes)
    families = _font_families()
    texts = _labels(names, families) if classes <= _NAMED else []
    letter = min(13.0, 0.8 * cell)  # height in pixels
    widest = max((_width(text) for text in texts), default=0)
    side = classes * cell
    margin = max(70.0, 24 + 0.62 * letter * widest)
    if classes > _NAMED:
        margin = 130.0
    width = side + margin + (130 if classes <= _NAMED else 180)
    height = side + margin + 60
    stream = io.BytesIO()
    with rc_context({"font.size": 10 * max(1.0, side / 1000), "font.family": families}):
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        # Cells are whole pixels, so that all of a thousand cells are equally wide.
        axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
        shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        norm = colors.PowerNorm(0.4, 0, 1)  # a share of 1 % is visible
        visible = np.ma.masked_equal(shares, 0)  # cells without images stay white
        image = axes.imshow(visible, cmap="YlGnBu", norm=norm, interpolation="nearest", aspect="auto")
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        total = int(matrix.sum())
        axes.set_title(f"{total} images, top-1 {np.trace(matrix) / max(total, 1):.4f}", pad=10)
        if texts:
            _name(axes, texts, letter)
        if classes <= _COUNTED:
            _count(axes, matrix, shares)
        if classes > _NAMED:
            _enlarge(axes, shares, norm)
        bar = figure.add_axes(((margin + side + 20) / width, margin / height, 16 / width, side / height))
        figure.colorbar(image, cax=bar, ticks=[0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], format="%g")
        bar.set_ylabel("share of the images of the true class")
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _cell_pixels(classes: int) -> int:
    """Return the side of a cell in pixels."""
    if classes <= _COUNTED:
        return max(40, 560 // classes)
    if classes <= _NAMED:
        return max(12, 1300 // classes)
    return max(1, 2000 // classes)


def _name(axes: Any, texts: Sequence[str], letter: float) -> None:
    """Write names along both axes, as text: signs such as $ do not begin a formula."""
    places = range(len(texts))
    options: dict[str, Any] = {"fontsize": letter * 72 / _DPI, "parse_math": False}
    axes.set_xticks(places, texts, rotation=90, **options)
    axes.set_yticks(places, texts, **options)
    axes.tick_params(length=2)


def _count(axes: Any, matrix: np.ndarray, shares: np.ndarray) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if shares[row, column] > 0.25 else "black"
        text = f"{matrix[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)


def _enlarge(axes: Any, shares: np.ndarray, norm: Any) -> None:
    """Draw mistakes larger than their cells of one or two pixels, frequent ones largest and on top."""
    rows, columns = np.nonzero(shares)
    wrong = rows != columns
    rows = rows[wrong]
    columns = columns[wrong]
    values = shares[rows, columns]
    order = np.argsort(values, kind="stable")
    sides = (3 + 12 * values[order]) * 72 / _DPI
    axes.scatter(
        columns[order], rows[order], s=sides**2, c=values[order], cmap="YlGnBu", norm=norm, marker="s", lw=0
    )


def _labels(names: Sequence[str], families: Sequence[str]) -> list[str]:
    """Return what to write for each class: its name, or its number if the fonts lack a letter of the name."""
    letters = _letters(families)
    texts: list[str] = []
    replaced: list[str] = []
    for number, name in enumerate(names):
        short = _shorten(name)
        shown = letters.issuperset(ord(letter) for letter in short if not letter.isspace())
        texts.append(short if shown and short else str(number))
        if not shown:
            replaced.append(name)
    if replaced:
        LOGGER.warning(
            "no font has the letters of %d class names (such as %s): the picture shows their numbers. "
            "Install a font such as Noto Sans CJK, or name one that you have in matplotlib's font.sans-serif",
            len(replaced),
            replaced[0],
        )
    return texts


def _shorten(name: str) -> str:
    """Return a name on one line, cut at `_LONGEST` letters."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip(" ,") + "…"


def _width(text: str) -> float:
    """Return the width of a text in Latin letters; Chinese ones are 1.6 times as wide."""
    return sum(1.6 if unicodedata.east_asian_width(sign) in "WF" else 1.0 for sign in text)


def _font_families() -> list[str]:
    """Return the fonts for names; matplotlib takes each letter from the first of them that has it."""
    from matplotlib import font_manager, rcParams

    installed = set(font_manager.get_font_names())
    wanted = dict.fromkeys([*rcParams["font.sans-serif"], *_CJK_FONTS])
    return [family for family in wanted if family in installed] or ["DejaVu Sans"]


def _letters(families: Sequence[str]) -> set[int]:
    """Return the characters that the fonts can draw."""
    from matplotlib import font_manager

    fonts = (font_manager.get_font(font_manager.findfont(family)) for family in families)
    return {letter for font in fonts for letter in font.get_charmap()}
