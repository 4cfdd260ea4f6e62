"""Write results into files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.data.io.video import is_video
from fullconv.inference.result_files import (
    OUTPUTS,
    creating,
    output_path,
)
from fullconv.inference.segmentation import Segmentation


def refuse_overwriting_inputs(
    found: Sequence[tuple[Path, Path]], out: Path, outputs: Sequence[str]
) -> None:
    """Refuses to write a result over one of the images that are to be predicted.

    Raises:
        FullconvError: a.jpg and a_mask.png are both images, and the results go beside them.
    """
    images = {path.resolve(): path for path, _ in found}
    for path, stem in found:
        for kind in outputs:
            for one in _targets(path, output_path(out / stem, kind).resolve(), kind):
                if one in images:
                    raise FullconvError(
                        f"the {kind} of {path} would be written over {images[one]}, which is one "
                        "of the images; nothing was done.",
                        "--out ANOTHER_FOLDER",
                    )


def _targets(path: Path, target: Path, kind: str) -> list[Path]:
    """Where a result may go: as other files too, of a video or of a GeoTIFF."""
    if is_video(path) and kind != "json":
        legend = target.with_name(target.name.replace(f"_{kind}.", "_legend."))
        return [target.with_suffix(".mp4"), target.with_suffix(".mkv"), legend.with_suffix(".png")]
    return [target, *([target.with_suffix(".tif")] * (kind == "mask"))]


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
        with creating(path):
            segmentation.save(path, kind)
        written.append(path)
    for name, head in segmentation.heads.items():
        kinds = [kind for kind in outputs if kind != "json"]  # the first one's file has them all
        written += save_outputs(head, stem.with_name(f"{stem.name}_{name}"), kinds)
    return written
