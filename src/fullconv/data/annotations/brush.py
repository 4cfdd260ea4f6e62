"""Brush strokes of Label Studio, which are compressed run lengths.

They are a bit stream: the number of words (32 bits), bits per word - 1 (5), four sizes - 1
(4 each), then chunks. A chunk is one bit (1: all words are equal), two bits that select a size, the
number of words - 1 in that many bits, then one word or all of them. The words are red, green, blue
and alpha of every pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.data.annotations.rasterize import RunLengths, Size, encode_run_lengths

EXPORT_AGAIN = msg("export the task again from Label Studio, as JSON")
_CHANNELS = 4
_WORD = 8  # bits
_LOOKAHEAD = 40  # bits read for a chunk: up to 7 before it, 1 + 2, 16 of its length, 8 of its word


def read_brush(numbers: Any, size: Size) -> RunLengths:
    """Read the mask in `value.rle` of an image of (H, W) pixels."""
    try:
        data = bytes(numbers) if isinstance(numbers, list) else b""
    except (TypeError, ValueError):
        data = b""
    if not data:
        raise FullconvError(msg("its rle is not a list of numbers from 0 to 255."), EXPORT_AGAIN)
    words = unpack_brush(data, _CHANNELS * size[0] * size[1])
    alpha = np.frombuffer(words, np.uint8)[_CHANNELS - 1 :: _CHANNELS]
    return encode_run_lengths(alpha.reshape(size) > 0)


def unpack_brush(data: bytes, count: int) -> bytearray:
    """Return the words in a bit stream of brush strokes, which must be `count` bytes.

    >>> list(unpack_brush(bytes([0, 0, 0, 3, 57, 27, 252, 64, 224]), 3))
    [7, 7, 7]
    """
    end = 8 * len(data)
    header = int.from_bytes(data[:7].ljust(7, b"\0"), "big") >> 3  # 53 bits
    total, word = header >> 21, (header >> 16 & 31) + 1
    sizes = [(header >> shift & 15) + 1 for shift in (12, 8, 4, 0)]
    if total != count or word != _WORD:
        message = msg(
            "brush strokes of {total} words of {bits} bits; expected {count} of 8 bits: red, "
            "green, blue and alpha of every pixel.",
            total=total,
            bits=word,
            count=count,
        )
        raise FullconvError(message, EXPORT_AGAIN)
    data += bytes(_LOOKAHEAD // 8)  # so that the bits of every chunk header exist
    words, done, position = bytearray(count), 0, 53
    while done < count:
        # The header of a chunk.
        first, skipped = position >> 3, position & 7
        bits = int.from_bytes(data[first : first + _LOOKAHEAD // 8], "big") << skipped
        size = sizes[bits >> _LOOKAHEAD - 3 & 3]
        length = (bits >> _LOOKAHEAD - 3 - size & (1 << size) - 1) + 1
        position += 3 + size
        is_run = bits >> _LOOKAHEAD - 1 & 1
        position += _WORD * (1 if is_run else length)
        if position > end:
            raise FullconvError(msg("the brush strokes end too early."), EXPORT_AGAIN)
        if done + length > count:
            message = msg("the brush strokes have more than {count} words.", count=count)
            raise FullconvError(message, EXPORT_AGAIN)
        # Its words: one that repeats, or all of them.
        if is_run:
            if value := bits >> _LOOKAHEAD - 3 - size - _WORD & 255:
                words[done : done + length] = bytes([value]) * length
        else:
            first = (position - _WORD * length) >> 3
            chunk = int.from_bytes(data[first : first + length + 1], "big") >> 8 - (position & 7)
            words[done : done + length] = (chunk & (1 << _WORD * length) - 1).to_bytes(length)
        done += length
    return words
