"""Write the results of an image, and refuse to overwrite the images themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg
from fullconv.data.io.video import is_video
from fullconv.inference.result_files import OUTPUTS, creating, head_stem, output_path
from fullconv.inference.segmentation import Segmentation


def save_outputs(segmentation: Segmentation, stem: Path, outputs: Sequence[str]) -> list[Path]:
    """Write the chosen output types as `stem` + "_mask.png" and so on, see `FILES`; those of
    additional heads as `stem` + "_HEAD_mask.png". Return the files.

    Raises:
        FullconvError: an unknown output type; `UnwrittenError`: a file cannot be written.
    """
    paths = []
    for kind in outputs:
        if kind not in OUTPUTS:
            message = msg(
                "no output type {kind!r}; there are {kinds}.", kind=kind, kinds=", ".join(OUTPUTS)
            )
            raise FullconvError(message, "--save mask,overlay")
        path = output_path(stem, kind)
        if kind == "mask" and segmentation.place:
            path = path.with_suffix(".tif")
        with creating(path):
            segmentation.save(path, kind)
        paths.append(path)
    for name, head in segmentation.heads.items():
        kinds = [kind for kind in outputs if kind != "json"]  # one JSON file describes all heads
        paths += save_outputs(head, head_stem(stem, name), kinds)
    return paths


def refuse_overwriting_inputs(
    images: Sequence[tuple[Path, Path]], out: Path, outputs: Sequence[str]
) -> None:
    """Raise FullconvError if a result would replace an image that is to be predicted, such as
    a_mask.png beside a.jpg. Each image comes with the stem of its results relative to `out`."""
    originals = {path.resolve(): path for path, _ in images}
    for path, stem in images:
        for kind in outputs:
            target = output_path(out / stem, kind).resolve()
            targets = [target]
            if is_video(path) and kind != "json":
                legend = target.with_name(target.name.replace(f"_{kind}.", "_legend."))
                targets = [target.with_suffix(".mp4"), target.with_suffix(".mkv")]
                targets.append(legend.with_suffix(".png"))
            elif kind == "mask":
                targets.append(target.with_suffix(".tif"))  # of a georeferenced image
            for target in targets:
                if target in originals:
                    values = {"kind": kind, "path": path, "original": originals[target]}
                    message = msg(
                        "the {kind} of {path} would overwrite {original}, which is one of the "
                        "images; nothing was written.",
                        **values,
                    )
                    raise FullconvError(message, "--out ANOTHER_FOLDER")
