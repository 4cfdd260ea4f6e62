"""Whole mask and image files of every format, small, for `damage` to damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat
from scipy.sparse import csc_matrix

from fullconv.core.labels import voc_color

SIZE = (40, 56)  # H, W
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
PNG, HDF5 = b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a\n"


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
    """(H, W, C) samples as a PNG file of a color type; `woven`: interlaced."""
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
    gray, wide = ids[..., None], rgb.astype(np.uint16) * 257
    alpha = np.dstack([rgb, ids])
    turned = chunk(b"eXIf", b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0")
    notes = chunk(b"tEXt", b"Comment\0hello") + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b" * 99))
    notes += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>")
    notes += chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tRNS", bytes(6))
    return {
        "palette.png": png(gray, 8, 3),
        "palette4.png": png(gray, 4, 3),
        "palette_clear.png": png(gray, 8, 3, extra=chunk(b"tRNS", bytes(range(0, 200, 20)))),
        "palette_woven.png": png(gray, 8, 3, woven=True),
        "grey.png": png(gray),
        "grey1.png": png(gray % 2, 1),
        "grey2.png": png(gray % 4, 2),
        "grey4.png": png(gray, 4),
        "grey16.png": png(gray.astype(np.uint16) * 300, 16),
        "grey16_woven.png": png(gray.astype(np.uint16) * 300, 16, woven=True),
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
    files = {}
    for name, array in kinds.items():
        file = io.BytesIO()
        np.save(file, array, allow_pickle=True)
        files[f"{name}.npy"] = file.getvalue()
    file = io.BytesIO()
    np.savez(file, ids)
    files["archive.npy"] = file.getvalue()
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
        files[f"{name}.mat"] = file.getvalue()
    files["hdf5.mat"] = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + HDF5 + bytes(600)
    return files
