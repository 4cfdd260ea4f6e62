"""The files of a result: their names and how they are encoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.data.io.geotiff import tiff_software_tag
from fullconv.data.io.images import open_image
from fullconv.data.io.masks import save_png
from fullconv.data.io.video import is_video, video_software_tag

FILES = {  # what is added to the image's name
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
MARK = ("Software", "fullconv")  # in every image that is written here: a result, no photo
_SOFTWARE = 0x0131  # the tag of EXIF that says the same
_JPEG_SIDE = 65_500  # pixels: a longer JPEG cannot be


def is_own_output(path: Path) -> bool:
    """Whether an image or a video was written here: by its name and by the mark inside, so that a
    photo which is merely called street_mask.png is none."""
    if path.name.endswith("_mask.tif"):
        return tiff_software_tag(path) == MARK[1]
    if is_video(path):
        return (
            path.stem.endswith(("_mask", "_color", "_overlay"))
            and video_software_tag(path) == MARK[1]
        )
    if not path.name.endswith((*FILES.values(), "_legend.png", "_overlay.png")):  # as they were
        return False
    try:
        with open_image(path) as image:
            jpeg = path.suffix == ".jpg"
            found = image.getexif().get(_SOFTWARE) if jpeg else image.info.get(MARK[0])
            return bool(found == MARK[1])
    except FullconvError:  # reading it as an image will say what is wrong with it
        return False


def mark() -> PngInfo:
    """For an image that is written here: a result, no photo."""
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


@contextmanager
def creating(path: Path) -> Iterator[None]:
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
