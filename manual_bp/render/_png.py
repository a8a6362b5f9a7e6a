"""A PNG of a few coloured cells, without a library and the same bytes on every machine."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence

#: The most bytes that one stored deflate block can hold.
_STORED = 0xFFFF


def png(rows: int, cols: int, cells: Sequence[int], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """An image of ``rows * cols`` pixels, each an index into a palette of at most 256 colours.

    The pixels are stored, not compressed: what a compressor writes differs between versions of zlib, and two
    renderings of the same report must be the same bytes.
    """
    if rows * cols != len(cells) or rows * (cols + 1) > _STORED:
        raise ValueError(f"{len(cells)} cells do not make a small image of {rows} x {cols}")
    lines = b"".join(b"\0" + bytes(cells[row * cols : (row + 1) * cols]) for row in range(rows))
    header = struct.pack(">IIBBBBB", cols, rows, 8, 3, 0, 0, 0)  # 8 bits a pixel, indexed colours
    size = struct.pack("<HH", len(lines), len(lines) ^ 0xFFFF)
    pixels = b"\x78\x01\x01" + size + lines + struct.pack(">I", zlib.adler32(lines))
    parts = ((b"IHDR", header), (b"PLTE", bytes(sum(palette, ()))), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def data_uri(image: bytes) -> str:
    """The image as a ``data:`` address."""
    return "data:image/png;base64," + b64encode(image).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
