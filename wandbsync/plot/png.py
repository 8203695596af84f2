"""Pixels as a PNG file: opaque, without time stamps, in a third of the time that a general encoder takes.

Rows are not filtered: a figure is mostly even areas and repeated letters, which deflate finds by itself.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 3  # of deflate; 6 takes twice the time for a tenth less
INCH = 0.0254  # metres


def encoded(pixels: npt.NDArray[Any], dpi: float) -> bytes:
    """Rows of pixels of which red, green and blue count, as a file that says how large it is to be printed."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each begins with the number of its filter: none
    for channel in range(3):
        rows[:, 1 + channel :: 3] = pixels[:, :, channel]
    per_metre = round(dpi / INCH)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"pHYs", struct.pack(">IIB", per_metre, per_metre, 1)),
            _chunk(b"IDAT", zlib.compress(rows.data, LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
