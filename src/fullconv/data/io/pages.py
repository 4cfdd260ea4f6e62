"""Masks in files with several pages."""

from __future__ import annotations

from PIL import ImageFile

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg

_FORMATS = ("TIFF", "GIF", "PNG", "WEBP")
_SUBFILE_TYPE = 254  # TIFF tag
_COPY_OR_MASK = 0b101  # bits of that tag: a smaller copy of another page, a transparency mask
_MAX_PAGES = 32  # that are looked at


def refuse_pages(image: ImageFile.ImageFile, name: str) -> None:
    """Raise an error for a file with several pages, other than smaller copies and masks of TIFF."""
    count = getattr(image, "n_frames", 1)
    if image.format not in _FORMATS or count < 2:
        return
    (width, height), pages = image.size, 1
    for number in range(1, min(count, _MAX_PAGES)):
        image.seek(number)
        smaller = image.size[0] < width and image.size[1] < height
        tags = getattr(image, "tag_v2", {})  # of TIFF
        pages += not (smaller or int(tags.get(_SUBFILE_TYPE, 0)) & _COPY_OR_MASK)
    image.seek(0)
    if pages > 1:
        message = msg(
            "mask {name} has {count} pages; expected one, with a class id for each pixel.",
            name=name,
            count=count,
        )
        hint = msg("save each page as a file masks/CLASS/NAME.png, and run fullconv convert")
        raise FullconvError(message, hint)
