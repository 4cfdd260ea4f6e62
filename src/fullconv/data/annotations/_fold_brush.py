"""Brush strokes of Label Studio: the bytes of an RGBA picture, packed bit by bit.

The stream (that of @thi.ng/rle-pack) begins with the number of words (32 bits), the bits of a word
less one (5), and four sizes less one (4 each). Then come chunks: whether one word repeats (1 bit),
which of the four sizes its length has (2), the length less one (as many bits as that size), and
that word, or as many words as the length says. The words are the red, green, blue and alpha of
every pixel, row by row; a pixel is inside where its alpha is above 0, as in Label Studio's own
export to COCO.

Shapes: H, W picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.data.annotations._fold_rle import Runs, runs_of
from fullconv.data.annotations.rasterize import Size

_CHANNELS = 4
_WORD = 8  # bits
_HEAD = 40  # bits looked at for a chunk: 7 before it, 3 + 16 of its length, 8 of its word, rest
AGAIN = "export the task again from Label Studio, as JSON"


def read_brush(numbers: Any, size: Size) -> Runs:
    """The mask in `value.rle` of a picture of (H, W) pixels."""
    try:
        data = bytes(numbers) if isinstance(numbers, list) else b""
    except (TypeError, ValueError):
        data = b""
    if not data:
        raise FullconvError("its rle is no list of numbers from 0 to 255.", AGAIN)
    words = unpack(data, _CHANNELS * size[0] * size[1])
    alpha = np.frombuffer(words, np.uint8)[_CHANNELS - 1 :: _CHANNELS]
    return runs_of(alpha.reshape(size) > 0)


def unpack(data: bytes, count: int) -> bytearray:
    """The words in a stream, which must be `count` bytes.

    >>> list(unpack(bytes([0, 0, 0, 3, 57, 27, 252, 64, 224]), 3))
    [7, 7, 7]
    """
    end = 8 * len(data)
    start = int.from_bytes(data[:7].ljust(7, b"\0"), "big") >> 3  # 53 bits
    told, word = start >> 21, (start >> 16 & 31) + 1
    sizes = [(start >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if told != count or word != _WORD:
        raise FullconvError(
            f"brush strokes of {told} words of {word} bits; expected {count} of {_WORD} bits: "
            "red, green, blue and alpha of every pixel.",
            AGAIN,
        )
    data += bytes(_HEAD // 8)  # so that every look at a chunk is a whole one
    words, done, place = bytearray(count), 0, 53
    while done < count:
        first, skipped = place >> 3, place & 7
        head = int.from_bytes(data[first : first + _HEAD // 8], "big") << skipped
        size = sizes[head >> _HEAD - 3 & 3]
        length = (head >> _HEAD - 3 - size & (1 << size) - 1) + 1
        place += 3 + size
        repeats = head >> _HEAD - 1 & 1
        place += _WORD * (1 if repeats else length)
        if place > end or done + length > count:
            what = "end in the middle" if place > end else f"are more than {count} words"
            raise FullconvError(f"brush strokes that {what}.", AGAIN)
        if repeats:
            if value := head >> _HEAD - 3 - size - _WORD & 255:
                words[done : done + length] = bytes([value]) * length
        else:
            first = (place - _WORD * length) >> 3
            chunk = int.from_bytes(data[first : first + length + 1], "big") >> 8 - (place & 7)
            words[done : done + length] = (chunk & (1 << _WORD * length) - 1).to_bytes(length)
        done += length
    return words
