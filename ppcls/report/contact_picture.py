"""The contact sheet of ``ppcls check-data`` as one picture."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ppcls.report.contact_sheet import SIDE, Block, Tile

_COLUMNS = 12
_GAP = 8
_MARGIN = 16
_TITLE = 34
_CAPTION = 30
_CELL = SIDE + _GAP
_TALLEST = 60_000  # no JPEG is taller than 65,500 pixels
_LETTERS = 20


def sheet_picture(blocks: Sequence[Block], suffix: str) -> bytes:
    """Return the contact sheet as a picture; what would make it taller than 60,000 pixels is left out.

    Pillow's own font has Latin letters alone; letters that it lacks are shown as ``?``. The page has all.

    Args:
        blocks: what it shows.
        suffix: ``.png``, ``.jpg`` or ``.jpeg``.
    """
    shown: list[Block] = []
    height = _MARGIN
    for block in blocks:
        if height + _height(block) > _TALLEST:
            break
        shown.append(block)
        height += _height(block)
    sheet = Image.new("RGB", (2 * _MARGIN + _COLUMNS * _CELL, max(height, _CELL)), "white")
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for block in shown:
        more = f"  (and {block.left_out} more)" if block.left_out else ""
        draw.text(
            (_MARGIN, top + 8), _latin(block.title + more), fill="black", font=ImageFont.load_default(16)
        )
        for place, tile in enumerate(block.tiles):
            x = _MARGIN + place % _COLUMNS * _CELL
            _draw(sheet, draw, tile, x, top + _TITLE + place // _COLUMNS * (_CELL + _CAPTION))
        top += _height(block)
    stream = io.BytesIO()
    sheet.save(stream, "PNG" if suffix == ".png" else "JPEG")
    return stream.getvalue()


def _height(block: Block) -> int:
    rows = -(-len(block.tiles) // _COLUMNS)
    return _TITLE + rows * (_CELL + _CAPTION)


def _draw(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
    font = ImageFont.load_default(10)
    if tile.image is None:
        draw.rectangle((x, y, x + SIDE, y + SIDE), fill="#f3d9d9")
        draw.text((x + 8, y + SIDE // 2 - 6), "cannot be read", fill="#a02020", font=font)
    else:
        sheet.paste(tile.image, (x + (SIDE - tile.image.width) // 2, y + (SIDE - tile.image.height) // 2))
    for line, text in enumerate((_end(tile.lines[0]), " ".join(tile.lines[1:])[:_LETTERS])):
        draw.text((x, y + SIDE + 2 + 12 * line), _latin(text), fill="#555555", font=font)


def _end(path: str) -> str:
    return path if len(path) <= _LETTERS else f"...{path[3 - _LETTERS :]}"


def _latin(text: str) -> str:
    """Return a text with ``?`` for each letter that Pillow's own font lacks."""
    return "".join(sign if ord(sign) < 0x250 else "?" for sign in unicodedata.normalize("NFC", text))
