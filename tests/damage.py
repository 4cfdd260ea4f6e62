"""Damaged mask and picture files, made from whole ones of every format, the same from a seed.

    whole()          a small file of every format and mode, undamaged
    files(count)     damaged ones: headers that lie and files that are no pictures first, then files
                     cut, flipped, overwritten, renamed and glued together at random places
    bombs()          whole files of few bytes that have as many pixels as may be read, or more

The benchmark takes 5,000 of them; the tests take some hundred.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat
from scipy.sparse import csc_matrix

from fullconv.labels import voc_color

ARRAYS = (".npy", ".mat")
SIZE = (40, 56)  # H, W of the whole ones
HUGE = (60_000, 60_000)
LARGE = (9_400, 9_500)  # just below what Pillow opens without a word
LARGER = (13_300, 13_400)  # just below what Pillow opens with a warning
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ODD = (0, 1, 2, 3, 7, 8, 255, 256, 4096, 32767, 65535, 60_000, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
PNG, HDF5 = b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a\n"
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
    """A file's name, which says what it was and how it was damaged, and its bytes."""

    name: str
    content: bytes

    @property
    def is_array(self) -> bool:
        """Whether it can stand for a mask only."""
        return self.name.endswith(ARRAYS)


def files(count: int, *, seed: int = 0) -> Iterator[Damaged]:
    """So many, each of another name."""
    sound = whole()
    random = np.random.default_rng(seed)
    told = [*promises(), *_texts()]
    for number in range(count):
        if number < len(told):
            kind, content = told[number].name, told[number].content
        else:
            name = str(random.choice(sorted(sound)))
            how = str(random.choice(sorted(HURTS)))
            stem, _, suffix = name.partition(".")
            if how == "renamed":
                suffix = str(random.choice(sorted({n.partition(".")[2] for n in sound})))
            content = HURTS[how](random, sound[name], sound)
            kind = f"{stem}_{how}.{suffix}"
        yield Damaged(f"{number:05d}_{kind}", content)


def whole() -> dict[str, bytes]:
    """Name -> a small file that can be read, but for a few .npy and .mat files without a mask."""
    random = np.random.default_rng(0)
    ids = np.kron(random.integers(0, 8, (5, 7)), np.ones((8, 8), int)).astype(np.uint8)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8))
    noise = random.integers(0, 20, (*SIZE, 3), np.uint8)
    rgb = np.asarray(coarse.resize(SIZE[::-1], Image.Resampling.BILINEAR)) // 2 + noise
    return {**_png_files(ids, rgb), **_pillow_files(ids, rgb), **_tiffs(ids), **_arrays(ids)}


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    samples: np.ndarray, bits: int = 8, kind: int = 0, *, woven: bool = False, extra: bytes = b""
) -> bytes:
    """(H, W, C) samples as a PNG file of a colour type; `woven`: interlaced."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, woven)
    parts = [samples]
    if woven:
        parts = [samples[y::dy, x::dx] for y, x, dy, dx in PASSES] + [samples[1::2]]
    lines = b"".join(_lines(part, bits) for part in parts if part.size)
    if kind == 3:
        extra = chunk(b"PLTE", bytes(c for k in range(256) for c in voc_color(k))) + extra
    pixels = chunk(b"IDAT", zlib.compress(lines, 1))
    return PNG + chunk(b"IHDR", header) + extra + pixels + chunk(b"IEND", b"")


def _lines(samples: np.ndarray, bits: int) -> bytes:
    if bits == 8:
        packed = np.ascontiguousarray(samples, np.uint8).reshape(len(samples), -1)
    else:
        single = samples[..., None] >> np.arange(bits - 1, -1, -1) & 1
        packed = np.packbits(single.astype(np.uint8).reshape(len(samples), -1), axis=1)
    return np.pad(packed, ((0, 0), (1, 0))).tobytes()


def _png_files(ids: np.ndarray, rgb: np.ndarray) -> dict[str, bytes]:
    grey, wide = ids[..., None], rgb.astype(np.uint16) * 257
    alpha = np.dstack([rgb, ids])
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    notes = chunk(b"tEXt", b"Comment\0hello") + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b" * 99))
    notes += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>")
    notes += chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tRNS", bytes(6))
    return {
        "palette.png": png(grey, 8, 3),
        "palette4.png": png(grey, 4, 3),
        "palette_clear.png": png(grey, 8, 3, extra=chunk(b"tRNS", bytes(range(0, 200, 20)))),
        "palette_woven.png": png(grey, 8, 3, woven=True),
        "grey.png": png(grey),
        "grey1.png": png(grey % 2, 1),
        "grey2.png": png(grey % 4, 2),
        "grey4.png": png(grey, 4),
        "grey16.png": png(grey.astype(np.uint16) * 300, 16),
        "grey16_woven.png": png(grey.astype(np.uint16) * 300, 16, woven=True),
        "grey_alpha.png": png(np.dstack([ids, ids]), 8, 4),
        "rgb.png": png(rgb, 8, 2),
        "rgb16.png": png(wide, 16, 2),
        "rgb_woven.png": png(rgb, 8, 2, woven=True),
        "rgb_notes.png": png(rgb, 8, 2, extra=notes),
        "rgb_turned.png": png(rgb, 8, 2, extra=turned),
        "rgba.png": png(alpha, 8, 6),
        "rgba_woven.png": png(alpha, 8, 6, woven=True),
    }


def _pillow_files(ids: np.ndarray, rgb: np.ndarray) -> dict[str, bytes]:
    photo, mask, two = Image.fromarray(rgb), Image.fromarray(ids), Image.fromarray(ids % 2 == 1)
    painted = Image.fromarray(ids)
    painted.putpalette([c for k in range(256) for c in voc_color(k)])
    exif, notes = Image.Exif(), PngInfo()
    exif[0x0112], exif[0x010E] = 6, "a street"
    notes.add_itxt("Title", "a street")
    more = {"save_all": True, "append_images": [painted.rotate(180), painted]}
    wide = Image.fromarray(ids.astype(np.uint16) * 300)
    cases: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "animated.png": (photo, "PNG", {"save_all": True, "append_images": [photo.rotate(180)]}),
        "notes.png": (painted, "PNG", {"pnginfo": notes, "exif": exif}),
        "photo.jpg": (photo, "JPEG", {}),
        "progressive.jpg": (photo, "JPEG", {"progressive": True}),
        "grey.jpg": (mask, "JPEG", {}),
        "inks.jpg": (photo.convert("CMYK"), "JPEG", {}),
        "turned.jpg": (photo, "JPEG", {"exif": exif}),
        "pair.mpo": (photo, "MPO", {"save_all": True, "append_images": [photo]}),
        "still.gif": (painted, "GIF", {}),
        "animated.gif": (painted, "GIF", more),
        "mask.bmp": (painted, "BMP", {}),
        "photo.bmp": (photo, "BMP", {}),
        "two.bmp": (two, "BMP", {}),
        "photo.webp": (photo, "WEBP", {"exif": exif}),
        "mask.webp": (photo, "WEBP", {"lossless": True}),
        "animated.webp": (photo, "WEBP", {"save_all": True, "append_images": [photo.rotate(180)]}),
        "photo.avif": (photo, "AVIF", {}),
        "photo.jp2": (photo, "JPEG2000", {}),
        "mask.jp2": (mask, "JPEG2000", {}),
        "photo.ppm": (photo, "PPM", {}),
        "mask.pgm": (mask, "PPM", {}),
        "wide.pgm": (wide, "PPM", {}),
        "two.pbm": (two, "PPM", {}),
        "raw.tif": (mask, "TIFF", {}),
        "lzw.tif": (painted, "TIFF", {"compression": "tiff_lzw"}),
        "deflate.tif": (photo, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "packbits.tif": (photo, "TIFF", {"compression": "packbits"}),
        "jpeg.tif": (photo, "TIFF", {"compression": "jpeg"}),
        "fax.tif": (two, "TIFF", {"compression": "group4"}),
        "frames.tif": (painted, "TIFF", {**more, "compression": "tiff_lzw"}),
        "wide.tif": (wide, "TIFF", {"compression": "tiff_lzw"}),
        "real.tif": (mask.convert("F"), "TIFF", {}),
        "whole.tif": (mask.convert("I"), "TIFF", {}),
        "inks.tif": (photo.convert("CMYK"), "TIFF", {}),
        "big.tif": (mask, "TIFF", {"big_tiff": True}),
    }
    return {name: saved(*case) for name, case in cases.items()}


def saved(image: Image.Image, kind: str, options: dict[str, object] | None = None) -> bytes:
    """By Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **(options or {}))
    return file.getvalue()


def tiff(parts: list[bytes], tags: dict[int, tuple[int, ...]]) -> bytes:
    """Its strips (or tiles, where tags 324 and 325 are among them) and its tags, 32 bit each."""
    places, sizes = (324, 325) if 322 in tags else (273, 279)
    starts = [8 + sum(map(len, parts[:k])) for k in range(len(parts))]
    tags = {places: tuple(starts), sizes: tuple(map(len, parts)), **tags}
    data = b"".join(parts)
    directory = struct.pack("<H", len(tags))
    for tag in sorted(tags):
        values = struct.pack(f"<{len(tags[tag])}I", *tags[tag])
        place = values
        if len(values) > 4:
            place, data = struct.pack("<I", 8 + len(data)), data + values
        directory += struct.pack("<HHI", tag, 4, len(tags[tag])) + place
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def _tiffs(ids: np.ndarray) -> dict[str, bytes]:
    padded = np.pad(ids, ((0, 8), (0, 8)))
    tiles = [
        padded[y : y + 16, x : x + 16].tobytes() for y in (0, 16, 32) for x in range(0, 64, 16)
    ]
    tags = {256: (56,), 257: (40,), 258: (8,), 262: (1,), 277: (1,), 322: (16,), 323: (16,)}
    return {
        "tiled.tif": tiff(tiles, {**tags, 259: (1,)}),
        "tiled_deflate.tif": tiff([zlib.compress(t) for t in tiles], {**tags, 259: (8,)}),
    }


def _arrays(ids: np.ndarray) -> dict[str, bytes]:
    kinds = {
        "byte": ids,
        "wide": ids.astype(np.uint16) * 300,
        "long": ids.astype(np.int64),
        "big_endian": ids.astype(">i4"),
        "fortran": np.asfortranarray(ids),
        "flags": ids > 3,
        "real": ids / 2,
        "complex": ids.astype(complex),
        "dates": ids.astype("datetime64[s]"),
        "words": ids.astype("U1"),
        "records": ids.astype(np.uint8).view([("a", "u1")]),
        "objects": ids.astype(object),
        "volume": np.stack([ids] * 3),
        "line": ids.ravel(),
        "number": np.array(3),
        "empty": ids[:0],
    }
    found = {}
    for name, array in kinds.items():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        found[f"{name}.npy"] = file.getvalue()
    file = io.BytesIO()
    np.savez(file, ids)
    found["archive.npy"] = file.getvalue()
    edges = np.empty((2, 1), object)
    edges[:, 0] = csc_matrix(ids), csc_matrix(ids)
    struct_ = {"GTcls": {"Segmentation": ids, "Boundaries": edges, "CategoriesPresent": [1, 2]}}
    names = np.array(["sky", "road"], object)
    for name, table, options in (
        ("five", {"S": ids, "names": names}, {}),
        ("packed", {"LabelMap": ids.astype(np.uint16)}, {"do_compression": True}),
        ("sbd", struct_, {}),
        ("sbd_packed", struct_, {"do_compression": True}),
        ("real", {"labels": ids.astype(float), "note": "made by hand"}, {}),
        ("sparse", {"labels": csc_matrix(ids)}, {}),
        ("four", {"labels": ids.astype(float)}, {"format": "4"}),
        ("four_bytes", {"labels": ids}, {"format": "4"}),
    ):
        file = io.BytesIO()
        savemat(file, table, **options)
        found[f"{name}.mat"] = file.getvalue()
    found["hdf5.mat"] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + HDF5 + bytes(600)
    return found


def promises() -> list[Damaged]:
    """Small files whose headers promise much."""
    sound, found = whole(), []

    def add(name: str, content: bytes) -> None:
        found.append(Damaged(name, content))

    for word, size in (("huge", HUGE), ("large", LARGE), ("larger", LARGER)):
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
        dims, new = struct.pack(">HH", 40, 56), struct.pack(">HH", height, width)
        for name in ("photo", "progressive", "grey"):
            add(f"{name}_{word}.jpg", sound[f"{name}.jpg"].replace(dims, new, 1))
        for name, suffix in (("photo", "ppm"), ("mask", "pgm"), ("two", "pbm")):
            text = f"{width} {height}".encode()
            add(f"{name}_{word}.{suffix}", sound[f"{name}.{suffix}"].replace(b"56 40", text, 1))
        both = struct.pack(">II", 56, 40), struct.pack(">II", 40, 56)
        add(f"photo_{word}.avif", sound["photo.avif"].replace(both[0], struct.pack(">II", *size)))
        content = sound["photo.jp2"]
        for old, one in zip(both, (size[::-1], size), strict=True):
            content = content.replace(old, struct.pack(">II", *one))
        add(f"photo_{word}.jp2", content)
        add(f"photo_{word}.webp", _larger_webp(sound["photo.webp"], size))
        for name in ("byte", "long", "fortran", "big_endian"):
            text = b"(%d, %d)" % size
            content = sound[f"{name}.npy"].replace(b"(40, 56)" + bytes(0), text)
            add(f"{name}_{word}.npy", content)
        add(f"five_{word}.mat", sound["five.mat"].replace(*_dims(size)))
        add(f"sbd_{word}.mat", sound["sbd.mat"].replace(*_dims(size)))
        names = struct.pack("<ii", 1, 2), struct.pack("<ii", *size)
        add(f"cells_{word}.mat", sound["five.mat"].replace(*names))
        add(f"packed_{word}.mat", _packed(sound["five.mat"].replace(*_dims(size))))
        add(f"cells_packed_{word}.mat", _packed(sound["five.mat"].replace(*names)))
        add(f"four_{word}.mat", sound["four.mat"].replace(*_dims(size)))
        found += _lying_tiffs(word, size)
    return found


def _dims(size: tuple[int, int]) -> tuple[bytes, bytes]:
    return struct.pack("<ii", 40, 56), struct.pack("<ii", *size)


def _packed(content: bytes) -> bytes:
    """A .mat file of version 5 with each of its matrices compressed."""
    parts, at = [content[:128]], 128
    while at + 8 <= len(content):
        end = at + 8 + struct.unpack_from("<I", content, at + 4)[0]
        data = zlib.compress(content[at:end])
        parts.append(struct.pack("<II", 15, len(data)) + data)
        at = end
    return b"".join(parts)


def _larger_webp(content: bytes, size: tuple[int, int]) -> bytes:
    """With another canvas in its VP8X chunk."""
    at = content.index(b"VP8X") + 12
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in size[::-1])
    return content[:at] + sides + content[at + 6 :]


def _lying_tiffs(word: str, size: tuple[int, int]) -> list[Damaged]:
    height, width = size
    plain = {256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
    small = {**plain, 256: (56,), 257: (40,)}
    data = zlib.compress(bytes(3000))
    cases = {
        "strip": (plain, bytes(100)),
        "strip_packed": ({**plain, 259: (8,)}, data),
        "strip_lzw": ({**plain, 259: (5,), 278: (height,)}, bytes(100)),
        "strip_fax": ({**plain, 258: (1,), 259: (4,)}, bytes(100)),
        "tiles": ({**plain, 322: (width,), 323: (height,), 259: (8,)}, data),
        "small_tiles": ({**small, 322: (width - width % 16,), 323: (height - height % 16,)}, data),
        "small_tiles_packed": (
            {**small, 322: (width & -16,), 323: (height & -16,), 259: (8,)},
            data,
        ),
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
    """Name -> what makes it: each takes a second or two, and so does reading it."""

    def flat(bits: int, kind: int, channels: int, size: tuple[int, int] = LARGE) -> bytes:
        line = bytes(1 + -(-size[1] * bits * channels // 8))
        packer = zlib.compressobj(1)
        data = b"".join(packer.compress(line) for _ in range(size[0])) + packer.flush()
        header = struct.pack(">IIBBBBB", size[1], size[0], bits, kind, 0, 0, 0)
        colors = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
        parts = (chunk(b"IHDR", header), colors, chunk(b"IDAT", data), chunk(b"IEND", b""))
        return PNG + b"".join(parts)

    def woven() -> bytes:
        return png(np.zeros((*LARGE, 3), np.uint8), 8, 2, woven=True)

    def turned() -> bytes:
        content = flat(8, 2, 3)
        exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
        return content[:33] + chunk(b"eXIf", exif) + content[33:]

    def noise() -> bytes:
        """1 million colours, each line the same."""
        line = np.random.default_rng(0).integers(0, 256, 3 * LARGE[1], np.uint8).tobytes()
        packer = zlib.compressobj(1)
        rows = [packer.compress(b"\2" + (bytes(len(line)) if k else line)) for k in range(LARGE[0])]
        header = struct.pack(">IIBBBBB", LARGE[1], LARGE[0], 8, 2, 0, 0, 0)
        data = chunk(b"IDAT", b"".join(rows) + packer.flush())
        return PNG + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")

    def pillow(mode: str, kind: str, **options: object) -> bytes:
        return saved(Image.new(mode, LARGE[::-1]), kind, options)

    def runs() -> bytes:
        """A BMP file of runs."""
        line = b"".join(bytes((n, 0)) for n in (*[255] * 37, 65)) + b"\0\0"
        data = line * LARGE[0] + b"\0\1"
        header = struct.pack("<IiiHHIIiiII", 40, LARGE[1], LARGE[0], 1, 8, 1, len(data), 0, 0, 0, 0)
        start = 14 + len(header) + 1024
        return (
            struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
            + header
            + bytes(1024)
            + data
        )

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
        "flat_woven.png": woven,
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
        "flat.avif": lambda: pillow("RGB", "AVIF", speed=10),
        "flat_bytes.mat": lambda: matlab(np.uint8, LARGE),
        "flat_real.mat": lambda: matlab(np.float64, LARGE),
        "flat_larger.mat": lambda: matlab(np.uint8, (20_000, 20_000)),
        "flat_bytes.npy": lambda: numpy(np.uint8, LARGE),
        "flat_long.npy": lambda: numpy(np.int64, (6_000, 6_000)),
    }


def _places(random: np.random.Generator, content: bytes, count: int) -> list[int]:
    """Half of the times in the header, where it hurts more."""
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
    """Numbers in the header become small, large and odd ones."""
    data = bytearray(content)
    for place in random.integers(0, min(len(data), 400), int(random.integers(1, 4))):
        size, order = int(random.choice([1, 2, 4])), str(random.choice(["little", "big"]))
        value = int(random.choice(ODD)) % 256**size
        data[place : place + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
    return bytes(data[: len(content)])


def _numbers_with_sums(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """The same, but the check sums of a PNG file are right afterwards."""
    data = bytearray(_numbers(random, content, _))
    at = 8
    while data.startswith(PNG) and at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        data[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(data[at + 4 : end])))
        at = end + 4
    return bytes(data)


def _noise(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """Random bytes behind the right beginning."""
    return content[: int(random.integers(4, 40))] + random.bytes(int(random.integers(1, 3000)))


def _moved(random: np.random.Generator, content: bytes, _: object) -> bytes:
    """A part of it is missing, or stands twice."""
    start, end = sorted(_places(random, content, 2))
    again = content[start:] if random.random() < 0.5 else b""
    return content[:start] + content[end:] if not again else content[:end] + again


def _glued(random: np.random.Generator, content: bytes, sound: dict[str, bytes]) -> bytes:
    """The end of another file behind the beginning of this one."""
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
