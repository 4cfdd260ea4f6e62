"""Damaged mask and image files, made from intact ones of every format; the seed determines them.

    files(count)     first files with wrong headers and files that are no images, then files that
                     are cut, flipped, overwritten, renamed and joined at random positions
    bombs()          intact small files with as many pixels as may be read, or more

The benchmark uses 5,000 of them, the tests some hundred.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.io import savemat
from sound import PNG, chunk, png, saved, tiff, whole

ARRAYS = (".npy", ".mat")
HUGE = (60_000, 60_000)
HALF = (6_600, 6_700)  # just below half of what Pillow opens without a warning
LARGE = (9_400, 9_500)  # just below all of it
LARGER = (13_300, 13_400)  # just below what Pillow opens with a warning
ODD = (0, 1, 2, 3, 7, 8, 255, 256, 4096, 32767, 65535, 60_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
TEXTS = {
    "text": b"hello",
    "page": b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>gone</body></html>\n",
    "table": b'{"version": "5.4.1", "shapes": [], "imageHeight": 40, "imageWidth": 56}',
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="56" height="40"></svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 56 40\n%%EndComments\nshowpage\n",
    "bitmap": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {\n0x01};\n",
    "pickle": b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.",
    "archive": b"PK\x03\x04" + bytes(60),
    "document": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "nothing": b"",
    "zeros": bytes(500),
}


@dataclass(frozen=True)
class Damaged:
    """The name of a file, which tells what it was and how it was damaged, and its bytes."""

    name: str
    content: bytes

    @property
    def is_array(self) -> bool:
        """True if it can only be a mask."""
        return self.name.endswith(ARRAYS)


def files(count: int, *, seed: int = 0) -> Iterator[Damaged]:
    """Yield damaged files with different names."""
    sound = whole()
    random = np.random.default_rng(seed)
    fixed = [*promises(), *_texts()]
    for number in range(count):
        if number < len(fixed):
            kind, content = fixed[number].name, fixed[number].content
        else:
            name = str(random.choice(sorted(sound)))
            how = str(random.choice(sorted(HURTS)))
            stem, _, suffix = name.partition(".")
            if how == "renamed":
                suffix = str(random.choice(sorted({n.partition(".")[2] for n in sound})))
            content = HURTS[how](random, sound[name], sound)
            kind = f"{stem}_{how}.{suffix}"
        yield Damaged(f"{number:05d}_{kind}", content)


def promises() -> list[Damaged]:
    """Return small files whose headers claim large images."""
    sound, damaged = whole(), []

    def add(name: str, content: bytes) -> None:
        damaged.append(Damaged(name, content))

    for word, size in (("huge", HUGE), ("half", HALF), ("large", LARGE), ("larger", LARGER)):
        height, width = size
        for name in ("palette", "grey1", "grey16", "rgb", "rgba_woven"):
            content = sound[f"{name}.png"]
            header = struct.pack(">II", width, height) + content[24:29]
            add(f"{name}_{word}.png", PNG + chunk(b"IHDR", header) + content[33:])
        for name in ("mask.bmp", "photo.bmp"):
            content = sound[name]
            stem = name.partition(".")[0]
            add(f"{stem}_{word}.bmp", content[:18] + struct.pack("<ii", *size[::-1]) + content[26:])
        low = struct.pack("<HH", width, height)
        add(f"still_{word}.gif", sound["still.gif"].replace(struct.pack("<HH", 56, 40), low))
        old, new = struct.pack(">HH", 40, 56), struct.pack(">HH", height, width)
        for name in ("photo", "progressive", "grey"):
            add(f"{name}_{word}.jpg", sound[f"{name}.jpg"].replace(old, new, 1))
        for name, suffix in (("photo", "ppm"), ("mask", "pgm"), ("two", "pbm")):
            text = f"{width} {height}".encode()
            add(f"{name}_{word}.{suffix}", sound[f"{name}.{suffix}"].replace(b"56 40", text, 1))
        old, old_swapped = struct.pack(">II", 56, 40), struct.pack(">II", 40, 56)
        new, new_swapped = struct.pack(">II", width, height), struct.pack(">II", height, width)
        add(f"photo_{word}.avif", sound["photo.avif"].replace(old, new_swapped))
        content = sound["photo.jp2"].replace(old, new).replace(old_swapped, new_swapped)
        add(f"photo_{word}.jp2", content)
        add(f"photo_{word}.webp", _larger_webp(sound["photo.webp"], size))
        for name in ("byte", "long", "fortran", "big_endian"):
            text = b"(%d, %d)" % size
            content = sound[f"{name}.npy"].replace(b"(40, 56)" + bytes(0), text)
            add(f"{name}_{word}.npy", content)
        sides = struct.pack("<ii", 40, 56), struct.pack("<ii", *size)
        cells = struct.pack("<ii", 1, 2), struct.pack("<ii", *size)
        add(f"five_{word}.mat", sound["five.mat"].replace(*sides))
        add(f"sbd_{word}.mat", sound["sbd.mat"].replace(*sides))
        add(f"cells_{word}.mat", sound["five.mat"].replace(*cells))
        add(f"packed_{word}.mat", _packed(sound["five.mat"].replace(*sides)))
        add(f"cells_packed_{word}.mat", _packed(sound["five.mat"].replace(*cells)))
        add(f"four_{word}.mat", sound["four.mat"].replace(*sides))
        damaged += _lying_tiffs(word, size)
    return damaged


def _packed(content: bytes) -> bytes:
    """Return a .mat file of version 5 with each of its matrices compressed."""
    parts, at = [content[:128]], 128
    while at + 8 <= len(content):
        end = at + 8 + struct.unpack_from("<I", content, at + 4)[0]
        data = zlib.compress(content[at:end])
        parts.append(struct.pack("<II", 15, len(data)) + data)
        at = end
    return b"".join(parts)


def _larger_webp(content: bytes, size: tuple[int, int]) -> bytes:
    """Return a WebP file with another canvas size in its VP8X chunk."""
    at = content.index(b"VP8X") + 12
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size[::-1])
    return content[:at] + sides + content[at + 6 :]


def _lying_tiffs(word: str, size: tuple[int, int]) -> list[Damaged]:
    height, width = size
    plain = {256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
    small = {**plain, 256: (56,), 257: (40,)}
    tiles = {322: (width & -16,), 323: (height & -16,)}
    data = zlib.compress(bytes(3000))
    cases = {
        "strip": (plain, bytes(100)),
        "strip_packed": ({**plain, 259: (8,)}, data),
        "strip_lzw": ({**plain, 259: (5,), 278: (height,)}, bytes(100)),
        "strip_fax": ({**plain, 258: (1,), 259: (4,)}, bytes(100)),
        "tiles": ({**plain, 322: (width,), 323: (height,), 259: (8,)}, data),
        "small_tiles": ({**small, **tiles}, data),
        "small_tiles_packed": ({**small, **tiles, 259: (8,)}, data),
        "small_rows": ({**small, 278: (height * width,), 259: (5,)}, data),
        "small_bytes": ({**small, 279: (2**32 - 1,)}, bytes(100)),
        "samples": ({**small, 277: (height,)}, bytes(100)),
        "bits": ({**small, 258: (8,) * 2000, 277: (2000,)}, bytes(100)),
    }
    return [
        Damaged(f"{name}_{word}.tif", tiff([data], tags)) for name, (tags, data) in cases.items()
    ]


def _texts() -> list[Damaged]:
    suffixes = ("png", "jpg", "tif", "gif", "bmp", "webp", "avif", "jp2", "ppm", "npy", "mat")
    return [
        Damaged(f"{name}.{suffix}", text) for name, text in TEXTS.items() for suffix in suffixes
    ]


def bombs() -> dict[str, Callable[[], bytes]]:
    """Return name -> the function that makes the file; each takes a second or two, like reading."""

    def flat(bits: int, kind: int, channels: int, size: tuple[int, int] = LARGE) -> bytes:
        line = bytes(1 + -(-size[1] * bits * channels // 8))
        packer = zlib.compressobj(1)
        data = b"".join(packer.compress(line) for _ in range(size[0])) + packer.flush()
        header = struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0)
        colors = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
        parts = (chunk(b"IHDR", header), colors, chunk(b"IDAT", data), chunk(b"IEND", b""))
        return PNG + b"".join(parts)

    def turned() -> bytes:
        content = flat(8, 2, 3)
        exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        return content[:33] + chunk(b"eXIf", exif) + content[33:]

    def noise() -> bytes:
        """Return 1 million colors, the same in each row."""
        line = np.random.default_rng(0).integers(0, 256, 3 * LARGE[1], np.uint8).tobytes()
        packer = zlib.compressobj(1)
        rows = [packer.compress(b"\2" + (bytes(len(line)) if k else line)) for k in range(LARGE[0])]
        header = struct.pack(">IIBBBBB", LARGE[1], LARGE[0], 8, 2, 0, 0, 0)
        data = chunk(b"IDAT", b"".join(rows) + packer.flush())
        return PNG + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")

    def pillow(mode: str, kind: str, **options: object) -> bytes:
        size = HALF if kind in ("WEBP", "AVIF", "JPEG2000") else LARGE
        return saved(Image.new(mode, size[::-1]), kind, options)

    def runs() -> bytes:
        """Return a run-length encoded BMP file."""
        line = b"".join(bytes((n, 0)) for n in (*[255] * 37, 65)) + b"\0\0"
        data = line * LARGE[0] + b"\0\1"
        header = struct.pack("<IiiHHIIiiII", 40, LARGE[1], LARGE[0], 1, 8, 1, len(data), 0, 0, 0, 0)
        start = 14 + len(header) + 1024
        begin = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
        return begin + header + bytes(1024) + data

    def matlab(kind: type, size: tuple[int, int]) -> bytes:
        file = io.BytesIO()
        savemat(file, {"labels": np.zeros(size, kind)}, do_compression=True)
        return file.getvalue()

    def numpy(kind: type, size: tuple[int, int]) -> bytes:
        file = io.BytesIO()
        np.save(file, np.zeros(size, kind))
        return file.getvalue()

    return {
        "flat_palette.png": lambda: flat(8, 3, 1),
        "flat_grey.png": lambda: flat(8, 0, 1),
        "flat_two.png": lambda: flat(1, 0, 1),
        "flat_two_larger.png": lambda: flat(1, 0, 1, LARGER),
        "flat_rgb_larger.png": lambda: flat(8, 2, 3, LARGER),
        "flat_grey16.png": lambda: flat(16, 0, 1),
        "flat_rgb.png": lambda: flat(8, 2, 3),
        "flat_rgb16.png": lambda: flat(16, 2, 3),
        "flat_rgba.png": lambda: flat(8, 6, 4),
        "flat_grey_alpha.png": lambda: flat(8, 4, 2),
        "flat_woven.png": lambda: png(np.zeros((*LARGE, 3), np.uint8), 8, 2, woven=True),
        "flat_turned.png": turned,
        "colours.png": noise,
        "flat.gif": lambda: pillow("P", "GIF"),
        "flat_deflate.tif": lambda: pillow("RGB", "TIFF", compression="tiff_adobe_deflate"),
        "flat_lzw.tif": lambda: pillow("L", "TIFF", compression="tiff_lzw"),
        "flat_fax.tif": lambda: pillow("1", "TIFF", compression="group4"),
        "flat_wide.tif": lambda: pillow("I", "TIFF", compression="tiff_adobe_deflate"),
        "flat_inks.tif": lambda: pillow("CMYK", "TIFF", compression="tiff_adobe_deflate"),
        "flat.bmp": runs,
        "flat_grey.jpg": lambda: pillow("L", "JPEG"),
        "flat_progressive.jpg": lambda: pillow("RGB", "JPEG", progressive=True, subsampling=0),
        "flat_inks.jpg": lambda: pillow("CMYK", "JPEG"),
        "flat.webp": lambda: pillow("RGB", "WEBP", quality=0, method=0),
        "flat_lossless.webp": lambda: pillow("RGB", "WEBP", lossless=True, quality=0, method=0),
        "flat.jp2": lambda: pillow("RGB", "JPEG2000"),
        "flat_rgba.jp2": lambda: pillow("RGBA", "JPEG2000"),
        "flat.avif": lambda: pillow("RGB", "AVIF", speed=10),
        "flat_bytes.mat": lambda: matlab(np.uint8, LARGE),
        "flat_real.mat": lambda: matlab(np.float64, LARGE),
        "flat_larger.mat": lambda: matlab(np.uint8, (20_000, 20_000)),
        "flat_bytes.npy": lambda: numpy(np.uint8, LARGE),
        "flat_long.npy": lambda: numpy(np.int64, (6_000, 6_000)),
    }


def _places(random: np.random.Generator, content: bytes, count: int) -> list[int]:
    """Return a random position; half of the time in the header, where damage matters more."""
    end = len(content) if random.random() < 0.5 else min(len(content), 300)
    return [int(place) for place in random.integers(0, max(1, end), count)]


def _cut(random: np.random.Generator, content: bytes, _: object) -> bytes:
    return content[: _places(random, content, 1)[0]]


def _flipped(random: np.random.Generator, content: bytes, _: object) -> bytes:
    data = bytearray(content)
    for place in _places(random, content, int(random.integers(1, 12))):
        data[place] ^= 1 << int(random.integers(8))
    return bytes(data)


def _overwritten(random: np.random.Generator, content: bytes, _: object) -> bytes:
    place, length = _places(random, content, 1)[0], int(random.integers(1, 65))
    new = random.bytes(length) if random.random() < 0.7 else bytes(length)
    return (content[:place] + new + content[place + length :])[: len(content)]


def _numbers(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """Replace numbers in the header by small, large and odd ones."""
    data = bytearray(content)
    for place in random.integers(0, min(len(data), 400), int(random.integers(1, 4))):
        size, order = int(random.choice([1, 2, 4])), str(random.choice(["little", "big"]))
        value = int(random.choice(ODD)) % 256**size
        data[place : place + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(data[: len(content)])


def _numbers_with_sums(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """Replace numbers, and correct the checksums of a PNG file."""
    data = bytearray(_numbers(random, content, _))
    at = 8
    while data.startswith(PNG) and at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        data[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(data[at + 4 : end])))
        at = end + 4
    return bytes(data)


def _noise(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """Write random bytes after a correct beginning."""
    return content[: int(random.integers(4, 40))] + random.bytes(int(random.integers(1, 3000)))


def _moved(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """Remove or repeat a part of the file."""
    start, end = sorted(_places(random, content, 2))
    again = content[start:] if random.random() < 0.5 else b""
    return content[:start] + content[end:] if not again else content[:end] + again


def _glued(random: np.random.Generator, content: bytes, sound: dict[str, bytes]) -> bytes:
    """Append the end of another file to the beginning of this one."""
    other = sound[str(random.choice(sorted(sound)))]
    return content[: _places(random, content, 1)[0]] + other[_places(random, other, 1)[0] :]


def _renamed(random: np.random.Generator, content: bytes, _: object) -> bytes:
    return content


HURTS: dict[str, Callable[[np.random.Generator, bytes, dict[str, bytes]], bytes]] = {
    "cut": _cut,
    "flipped": _flipped,
    "overwritten": _overwritten,
    "numbers": _numbers,
    "numbers_with_sums": _numbers_with_sums,
    "noise": _noise,
    "moved": _moved,
    "glued": _glued,
    "renamed": _renamed,
}
