"""The files of a result: their names, their encoding, and the mark that tells them from photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fullconv.core.errors import FullconvError, UnwrittenError
from fullconv.core.i18n import msg
from fullconv.data.io.geotiff import tiff_software_tag
from fullconv.data.io.images import open_image
from fullconv.data.io.masks import save_png
from fullconv.data.io.video import is_video, video_software_tag

FILES = {  # output type -> what is added to the image's name
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
STREAM_OUTPUTS = ("mask", "color", "overlay", "json")  # of videos, and of images read in windows
OUT_HINT = msg("--out ANOTHER_FOLDER   # or df -h, if the disk is full")
MARK = ("Software", "fullconv")  # metadata of every image that is written here
_EXIF_SOFTWARE = 0x0131
_JPEG_MAX_SIDE = 65_500  # pixels


def is_own_output(path: Path) -> bool:
    """Return whether an image or a video was written by Fullconv: by its name and the mark in its
    metadata, so that a photo that happens to be called street_mask.png is not taken for a result.
    """
    if path.name.endswith("_mask.tif"):
        return tiff_software_tag(path) == MARK[1]
    if is_video(path):
        has_name = path.stem.endswith(("_mask", "_color", "_overlay"))
        return has_name and video_software_tag(path) == MARK[1]
    # Overlays were PNG files in earlier versions.
    if not path.name.endswith((*FILES.values(), "_legend.png", "_overlay.png")):
        return False
    try:
        with open_image(path) as image:
            is_jpeg = path.suffix == ".jpg"
            software = image.getexif().get(_EXIF_SOFTWARE) if is_jpeg else image.info.get(MARK[0])
            return bool(software == MARK[1])
    except FullconvError:  # reading it as an image reports what is wrong with it
        return False


def png_mark() -> PngInfo:
    """Return the PNG metadata that marks an image as a result."""
    info = PngInfo()
    info.add_text(*MARK)
    return info


def encode_image(image: Image.Image, kind: str) -> bytes:
    """Return the file content of an output type. Overlays are JPEG, as photos are: smaller and much
    faster to encode than PNG."""
    file = BytesIO()
    if FILES[kind].endswith(".jpg"):
        exif = Image.Exif()
        exif[_EXIF_SOFTWARE] = MARK[1]
        if max(image.size) > _JPEG_MAX_SIDE:
            image.thumbnail((_JPEG_MAX_SIDE, _JPEG_MAX_SIDE))
        image.save(file, format="JPEG", quality=90, subsampling=0, exif=exif)
    else:
        save_png(image, file, png_mark())
    return file.getvalue()


def output_path(stem: Path, kind: str) -> Path:
    """Return the path of an output type: `stem` + "_mask.png" and so on."""
    return stem.with_name(stem.name + FILES[kind])


def head_stem(stem: Path, head: str) -> Path:
    """Return the stem of a head's results; "" is the first head."""
    return stem.with_name(f"{stem.name}_{head}") if head else stem


def require_stream_outputs(outputs: Sequence[str], source: Path) -> None:
    """Raise FullconvError if an output type is not available for a video or a windowed image."""
    for kind in outputs:
        if kind not in STREAM_OUTPUTS:
            values = {"source": source, "kind": kind, "kinds": ", ".join(STREAM_OUTPUTS)}
            message = msg(
                "{source} is a video or is read in windows, and {kind} is not available "
                "for these; expected {kinds}.",
                **values,
            )
            raise FullconvError(message, "--save mask,overlay")


@contextmanager
def creating(path: Path) -> Iterator[None]:
    """Create the folder of a result, and raise UnwrittenError if the block cannot write it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise unwritten_error(path, error.strerror or error) from error


def unwritten_error(path: Path, reason: object) -> UnwrittenError:
    message = msg("the result could not be written to {path}: {reason}.", path=path, reason=reason)
    return UnwrittenError(message, OUT_HINT)
