"""Results: what was found in a picture, and the files it is written to.

Nothing here needs torch, so that exported models run without it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.labels import IGNORE, RGB, Labels
from fullconv.data.io.geotiff import SUFFIXES, Place, software_of, write_ids
from fullconv.data.io.images import PICTURE_SUFFIXES, opened
from fullconv.data.io.masks import mask_picture, save_png, write_mask
from fullconv.data.io.video import is_video, mark_of
from fullconv.inference.options import UNSURE
from fullconv.inference.probabilities import Probabilities, write_probabilities
from fullconv.inference.vectorize import coco, geojson
from fullconv.visualization import overlay as draw

FILES = {  # what is added to the picture's name
    "mask": "_mask.png",
    "color": "_color.png",
    "overlay": "_overlay.jpg",
    "confidence": "_confidence.png",
    "probability": "_probability.npz",
    "polygons": ".geojson",
    "coco": "_coco.json",
    "json": ".json",
}
OUTPUTS = tuple(FILES)
_UNSURE_COLORS: tuple[RGB, ...] = ((255, 0, 200), (255, 120, 0), (0, 255, 255), (255, 255, 255))
MARK = ("Software", "fullconv")  # in every picture that is written here: a result, no photo
_SOFTWARE = 0x0131  # the tag of EXIF that says the same
_JPEG_SIDE = 65_500  # pixels: a longer JPEG cannot be


@dataclass(frozen=True)
class Segmentation:
    """The result for one picture.

    Args:
        mask: (H, W) class ids in the picture's own size, uint8 (uint16 above 255 classes).
        labels: the classes.
        picture: (H, W, 3) uint8 RGB, as it was read.
        source: the file it came from, or None.
        heads: of a model with several, the results of the further ones, by name.
        unsure: (H, W) where the likeliest class was less likely than was asked for; the mask has
            the ignored id there. None where that was not asked.
        probabilities: gives those of the picture, of all heads; `number` is this one's.
        place: where the picture lies on the earth; None where that is not known.
    """

    mask: np.ndarray
    labels: Labels
    picture: np.ndarray
    source: Path | None = None
    heads: Mapping[str, Segmentation] = field(default_factory=dict)
    unsure: np.ndarray | None = None
    probabilities: Callable[[], Probabilities] | None = field(default=None, repr=False)
    number: int = 0
    place: Place | None = None

    def of_file(self, source: Path, place: Place | None = None) -> Segmentation:
        """The same with the file that the picture came from, and where it lies: what has no data
        there has no class, the mask is saved as a GeoTIFF, and polygons lie on the earth."""
        mask, unsure = self.mask, self.unsure
        if place and place.valid is not None:
            mask = np.where(place.valid, mask, mask.dtype.type(self.labels.ignore_index))
            unsure = None if unsure is None else unsure & place.valid
        heads = {name: of.of_file(source, place) for name, of in self.heads.items()}
        return replace(self, source=source, place=place, mask=mask, unsure=unsure, heads=heads)

    @property
    def area(self) -> dict[str, float]:
        """Share of the picture (fraction) of each class, by name. Where there are such pixels,
        "ignore" has those of no class; where it was asked for, "unsure" has those.
        """
        shown, labels = self.shown()
        counts = np.bincount(shown.ravel(), minlength=len(labels))
        counts[labels.ignore_index : labels.ignore_index + 1] = 0
        known = counts[: len(labels)].tolist()
        pairs = [*zip(labels.names, known, strict=True), (IGNORE, shown.size - sum(known))]
        return {name: count / shown.size for name, count in pairs if count or name != IGNORE}

    @property
    def confidence(self) -> np.ndarray:
        """The probability (fraction) of each pixel's likeliest class, (H, W) float32. The network
        runs once more for it, unless the model's options keep scores."""
        return self._probabilities().confidence(self.number)

    @property
    def probability(self) -> np.ndarray:
        """The probability (fraction) of each class at each pixel, (K, H, W) float32: large."""
        strips = self._probabilities().strips(self.number)
        return np.concatenate([found for _, found in strips], axis=1)

    def _probabilities(self) -> Probabilities:
        if self.probabilities is None:
            raise FullconvError(
                "this result was made without a model, and has no probabilities.",
                'model("photo.jpg").confidence',
            )
        return self.probabilities()

    def shown(self) -> tuple[np.ndarray, Labels]:
        """(H, W) ids and their class table, where what is unsure is a class of its own."""
        if self.unsure is None:
            return self.mask, self.labels
        names, colors = self.labels.names, self.labels.colors
        named = UNSURE if UNSURE not in names else f"{UNSURE} (no class)"
        color = next(one for one in _UNSURE_COLORS if one not in colors)
        ignored = max(self.labels.ignore_index, len(self.labels) + 1)
        ids = self.mask.astype(np.int32)
        ids[ids == self.labels.ignore_index] = ignored
        ids[self.unsure] = len(self.labels)
        return ids, Labels((*names, named), (*colors, color), ignored)

    def color(self) -> Image.Image:
        """The class colours."""
        return Image.fromarray(draw.colorize(*self.shown()))

    def overlay(self, *, legend: bool = True) -> Image.Image:
        """The class colours over the picture, with a legend of the classes that occur."""
        drawn = draw.overlay_with_legend if legend else draw.overlay
        return Image.fromarray(drawn(self.picture, *self.shown()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: source, size in pixels, area by class; that of further heads under "heads"."""
        heads = {name: of._areas() for name, of in self.heads.items()}
        return {
            "source": str(self.source) if self.source else None,
            "height": int(self.mask.shape[0]),
            "width": int(self.mask.shape[1]),
            "area": self._areas(),
            **({"heads": heads} if heads else {}),
        }

    def _repr_html_(self) -> str:
        from fullconv.evaluation.report.notebook import segmentation_html

        return segmentation_html(self)

    def _repr_png_(self) -> bytes:
        from fullconv.evaluation.report.notebook import segmentation_png

        return segmentation_png(self)

    def _areas(self) -> dict[str, float]:
        return {name: share for name, share in self.area.items() if share > 0}

    def to_geojson(self) -> dict[str, Any]:
        """The regions of the classes as outlines, see `fullconv.inference.vectorize.geojson`; in longitude and
        latitude where the picture lies on the earth."""
        at = self.place.on_earth if self.place else None
        return geojson(self.mask, self.labels, str(self.source) if self.source else None, at)

    def to_coco(self) -> dict[str, Any]:
        """The regions of the classes as COCO has them, see `fullconv.inference.vectorize.coco`."""
        return coco(self.mask, self.labels, self.source.name if self.source else "")

    def save(self, path: Path, kind: str) -> None:
        """Writes one kind of result, of `OUTPUTS`."""
        tables = {"json": self.to_dict, "polygons": self.to_geojson, "coco": self.to_coco}
        if kind in tables:
            indent = 1 if kind == "json" else None
            path.write_text(json.dumps(tables[kind](), indent=indent), encoding="utf-8")
        elif kind == "probability":
            write_probabilities(path, self._probabilities(), self.number, self.labels)
        elif kind == "mask":
            self.save_mask(path)
        else:
            path.write_bytes(self.encoded(kind))

    def encoded(self, kind: str) -> bytes:
        """The file that `save` writes: of mask, color, overlay or confidence."""
        pictures = {"color": self.color, "overlay": self.overlay, "confidence": self._grey}
        if kind == "mask":
            return encoded(mask_picture(self.mask, self.labels, "the mask"), kind)
        return encoded(pictures[kind](), kind)

    def _grey(self) -> Image.Image:
        """The confidence, 0 .. 1 as 0 .. 255."""
        return Image.fromarray(np.round(self.confidence * 255).astype(np.uint8))

    def save_mask(self, path: str | Path) -> None:
        """The ids as a palette PNG; as a GeoTIFF (.tif), too, if the picture lies on the earth."""
        if self.place and Path(path).suffix.lower() in SUFFIXES:
            write_ids(Path(path), self.mask, self.place, self.labels, MARK[1])
        else:
            write_mask(Path(path), self.mask, self.labels, mark=mark())


def find_pictures(
    paths: Sequence[str | Path], *, left_out: list[Path] | None = None
) -> Iterator[tuple[Path, Path]]:
    """Every picture among files and folders (with all below, but for what is hidden), each with
    the name that its results get: relative to the folder it was found in, without the suffix.
    Where that was given away, the suffix (a.png: a_png) and then a number make it another one.

    Results that `save_outputs` wrote into a folder are no pictures; they are added to `left_out`.
    A file that is named itself is always taken.
    """
    skipped = left_out if left_out is not None else []
    return with_stems(pair for path in paths for pair in pictures_below(Path(path), skipped))


def with_stems(found: Iterable[tuple[Path, Path]]) -> Iterator[tuple[Path, Path]]:
    """Pictures and their relative paths -> pictures and the names of their results, each another
    one, see `find_pictures`."""
    taken: set[Path] = set()
    for path, name in found:
        stem = name.with_suffix("")
        if stem in taken:
            stem = name.with_name(name.name.replace(".", "_"))
        first, number = stem, 1
        while stem in taken:
            number += 1
            stem = first.with_name(f"{first.name}_{number}")
        taken.add(stem)
        yield path, stem


def pictures_below(
    given: Path, left_out: list[Path], suffixes: Sequence[str] = tuple(sorted(PICTURE_SUFFIXES))
) -> Iterator[tuple[Path, Path]]:
    """A picture, or all in a folder, each with its path relative to that."""
    if given.is_file():
        yield given, Path(given.name)
    elif given.is_dir():
        found = sorted(
            p
            for p in given.rglob("*")
            if p.suffix.lower() in suffixes
            and p.is_file()
            and not any(part.startswith(".") for part in p.relative_to(given).parts)
        )
        pictures: list[Path] = []
        for path in found:
            (left_out if is_result(path) else pictures).append(path)
        if not pictures:
            raise FullconvError(
                f"no picture in {given}{' but results of earlier runs' if found else ''}; "
                f"looked for {', '.join(suffixes)}.",
                "fullconv predict MODEL photo.jpg",
            )
        yield from ((path, path.relative_to(given)) for path in pictures)
    else:
        raise FullconvError(
            f"no picture or folder {given}: there is nothing of that name.",
            "fullconv predict MODEL photo.jpg",
        )


def is_result(path: Path) -> bool:
    """Whether a picture or a video was written here: by its name and by the mark inside, so that a
    photo which is merely called street_mask.png is none."""
    if path.name.endswith("_mask.tif"):
        return software_of(path) == MARK[1]
    if is_video(path):
        return path.stem.endswith(("_mask", "_color", "_overlay")) and mark_of(path) == MARK[1]
    if not path.name.endswith((*FILES.values(), "_legend.png", "_overlay.png")):  # as they were
        return False
    try:
        with opened(path) as image:
            jpeg = path.suffix == ".jpg"
            found = image.getexif().get(_SOFTWARE) if jpeg else image.info.get(MARK[0])
            return bool(found == MARK[1])
    except FullconvError:  # reading it as a picture will say what is wrong with it
        return False


def mark() -> PngInfo:
    """For a picture that is written here: a result, no photo."""
    made = PngInfo()
    made.add_text(*MARK)
    return made


def encoded(image: Image.Image, kind: str) -> bytes:
    """As the file of a kind of result. What is over a photo is a JPEG, like photos: smaller than a
    PNG, and much sooner packed."""
    file = BytesIO()
    if FILES[kind].endswith(".jpg"):
        exif = Image.Exif()
        exif[_SOFTWARE] = MARK[1]
        if max(image.size) > _JPEG_SIDE:
            image.thumbnail((_JPEG_SIDE, _JPEG_SIDE))
        image.save(file, format="JPEG", quality=90, subsampling=0, exif=exif)
    else:
        save_png(image, file, mark())
    return file.getvalue()


def output_path(stem: Path, kind: str) -> Path:
    """The file that `save_outputs` writes for one kind of result."""
    return stem.with_name(stem.name + FILES[kind])


def spare_pictures(found: Sequence[tuple[Path, Path]], out: Path, outputs: Sequence[str]) -> None:
    """Refuses to write a result over one of the pictures that are to be predicted.

    Raises:
        FullconvError: a.jpg and a_mask.png are both pictures, and the results go beside them.
    """
    pictures = {path.resolve(): path for path, _ in found}
    for path, stem in found:
        for kind in outputs:
            for one in _targets(path, output_path(out / stem, kind).resolve(), kind):
                if one in pictures:
                    raise FullconvError(
                        f"the {kind} of {path} would be written over {pictures[one]}, which is one "
                        "of the pictures; nothing was done.",
                        "--out ANOTHER_FOLDER",
                    )


def _targets(path: Path, target: Path, kind: str) -> list[Path]:
    """Where a result may go: as other files too, of a video or of a GeoTIFF."""
    if is_video(path) and kind != "json":
        legend = target.with_name(target.name.replace(f"_{kind}.", "_legend."))
        return [target.with_suffix(".mp4"), target.with_suffix(".mkv"), legend.with_suffix(".png")]
    return [target, *([target.with_suffix(".tif")] * (kind == "mask"))]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A result into its folder, which is made.

    Raises:
        UnwrittenError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UnwrittenError(
            f"the result could not be written to {path}: {error.strerror or error}.",
            "--out ANOTHER_FOLDER   # or df -h, if the disk is full",
        ) from error


def save_outputs(segmentation: Segmentation, stem: Path, outputs: Sequence[str]) -> list[Path]:
    """Writes the chosen kinds of result as `stem` + "_mask.png" and so on, see `FILES`; of further
    heads as `stem` + "_HEAD_mask.png". Returns the files.

    Raises:
        FullconvError: no such kind; `UnwrittenError`: a file that could not be written.
    """
    written = []
    for kind in outputs:
        if kind not in OUTPUTS:
            raise FullconvError(
                f"no output {kind!r}; there are {', '.join(OUTPUTS)}.", "--save mask,overlay"
            )
        path = output_path(stem, kind)
        if kind == "mask" and segmentation.place:
            path = path.with_suffix(".tif")
        with writing(path):
            segmentation.save(path, kind)
        written.append(path)
    for name, head in segmentation.heads.items():
        kinds = [kind for kind in outputs if kind != "json"]  # the first one's file has them all
        written += save_outputs(head, stem.with_name(f"{stem.name}_{name}"), kinds)
    return written
