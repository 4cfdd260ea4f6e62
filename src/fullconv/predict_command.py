"""The command that labels pictures: predict."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fullconv.errors import FullconvError, command, plural
from fullconv.memory import use_large_pages
from fullconv.terminal import Json, Precision, app, counting, emit, say


@dataclass(frozen=True)
class Asked:
    """What is asked of a model beside its labels, as it is typed."""

    classes: str = ""
    """Only these, with commas; all other pixels get the ignored id."""
    unsure: float | None = None
    """Pixels whose class has a lower probability than this fraction get the ignored id."""
    min_area: int = 0
    """Regions of fewer pixels take the class that surrounds them most."""
    flip: bool = False
    """Average the probabilities of each picture and its mirror image."""
    scales: str = ""
    """Average them over the picture at these sizes, with commas: 0.75,1,1.25."""
    every: int = 1
    """Of videos: label each so-many-th frame; those between show the labels before."""

    def options(self, outputs: list[str]) -> Any:
        """The `fullconv.options.Options`."""
        from fullconv.options import Options, listed, scales_of

        keep = "confidence" in outputs or "probability" in outputs
        scales, classes = scales_of(self.scales), listed(self.classes)
        return Options(self.flip, scales, classes, self.unsure, self.min_area, keep)


@app.command(sort_key=5)
def predict(
    model: Path,
    *pictures: Path,
    out: Path = Path("predictions"),
    save: str = "",
    inputs: str = "",
    precision: Precision = "auto",
    compile: bool = False,
    tile: int | None = None,
    huge: bool = False,
    json: Json = False,
    asked: Annotated[Asked | None, Parameter(name="*")] = None,
) -> None:
    """Label every pixel of pictures.

    Parameters
    ----------
    model
        A model's folder or its run, an exported file, torchvision:fcn_resnet50, .caffemodel, .pth.
    pictures
        Files, or folders of pictures; results of earlier runs in them are left out. Or videos.
    out
        Folder for the results.
    save
        With commas: mask (ids as a palette PNG), color, overlay, json, confidence (grey),
        probability (of each class, for NumPy), polygons (GeoJSON), coco. Default: mask,overlay.
    inputs
        Folders with a file for each picture, with commas, of a model that takes depth and the like.
    precision
        auto takes bfloat16 where it is faster and the model gives the same labels in it.
    compile
        Faster, after up to a minute at each of two sizes; on a CPU it needs a C++ compiler.
    tile
        Cut pictures that are longer into tiles of so many pixels; by default above 16.8 million.
    huge
        Read files of any size, also where a damaged one may only say that it is large.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.beside import names_of
    from fullconv.data.limits import any_size
    from fullconv.outputs import spare_pictures
    from fullconv.video import is_video

    asked, how = asked or Asked(), {"precision": precision, "compile": compile, "tile": tile}
    if any(map(is_video, pictures)):
        _videos(model, pictures, out, _kinds(save or "overlay"), asked, how, json)
        return
    outputs = _kinds(save or "mask,overlay")
    found = _pictures(model, pictures)
    spare_pictures(found, out, outputs)
    predictor = _loaded(model, found, options=asked.options(outputs), **how)
    beside = predictor.inputs_of([path for path, _ in found], names_of(inputs))
    with any_size() if huge else nullcontext():
        results, failed = _predicted(predictor, found, beside, out, outputs)
    every = plural(len(found), "picture")
    lines = [*map(_largest, results), f"{len(results)} of {every} -> {out}"]
    emit({"pictures": results, "failed": failed}, "\n".join(lines), json)
    if failed:
        raise _unread(failed, every)


def _loaded(
    model: Path, found: list[tuple[Path, Path]], *, tile: Any, options: Any, **how: Any
) -> Any:
    from fullconv.data.geotiff import wants_windows
    from fullconv.deployed import is_deployed, load_deployed

    if is_deployed(model):  # which needs no torch
        return load_deployed(model, tile=tile, options=options)
    from fullconv.predict import load

    if not any(wants_windows(path) for path, _ in found):
        use_large_pages()  # which take more memory, where windows shall keep to little
    return load(model, tile=tile, options=options, **how)


def _videos(
    model: Path,
    named: tuple[Path, ...],
    out: Path,
    outputs: list[str],
    asked: Asked,
    how: dict[str, Any],
    as_json: bool,
) -> None:
    """Labels videos, one after the other."""
    from fullconv.outputs import find_pictures
    from fullconv.video import is_video, predict_video

    others = [path for path in named if not is_video(path)]
    if others:
        raise FullconvError(
            f"{others[0]} is no video, and others that were named are; each kind is predicted on "
            "its own.",
            command("fullconv", "predict", model, *others),
        )
    found = list(find_pictures(named))
    predictor = _loaded(model, [], options=asked.options(outputs), **how)
    results, failed = [], []
    for path, stem in found:
        with counting(f"frames of {path.name}") as progress:
            try:
                result = predict_video(
                    predictor, path, out / stem, outputs, every=asked.every, progress=progress
                )
            except FullconvError as error:  # one bad video does not cost the others
                failed.append(error.message)
                continue
        if result["damaged"]:
            say(f"note: {result['damaged']}")
        results.append(result)
    every = plural(len(found), "video")
    lines = [*map(_largest, results), f"{len(results)} of {every} -> {out}"]
    emit({"videos": results, "failed": failed}, "\n".join(lines), as_json)
    if failed:
        raise _unread(failed, every)


def _predicted(
    predictor: Any,  # a Predictor or a Deployed, whose modules are loaded only when needed
    found: list[tuple[Path, Path]],
    beside: list[tuple[Path, ...]],
    out: Path,
    outputs: list[str],
) -> tuple[list[dict[str, Any]], list[str]]:
    """What was found in each picture, and what is wrong with those that could not be read."""
    from fullconv.data.geotiff import loses_its_place, wants_windows
    from fullconv.outputs import save_outputs

    results: list[dict[str, Any]] = []
    failed = []
    with counting("predicted") as progress:
        for done, (path, stem) in enumerate(found):
            progress(done, len(found))
            try:
                if predictor.windows and wants_windows(path):
                    from fullconv.rasters import predict_raster  # which needs torch

                    told = {"progress": progress} if len(found) == 1 else {}
                    results.append(predict_raster(predictor, path, out / stem, outputs, **told))
                    continue
                if loses_its_place(path):
                    say(
                        f"note: the mask of {path} will not be georeferenced without rasterio: pip "
                        'install "fullconv[geo]"'
                    )
                segmentation = predictor.segment(path, inputs=beside[done])
            except FullconvError as error:  # one bad picture does not cost the others
                failed.append(error.message)
                continue
            written = save_outputs(segmentation, out / stem, outputs)
            results.append({**segmentation.to_dict(), "files": [str(p) for p in written]})
    if predictor.seams:
        reasons = ", ".join(predictor.seams)
        say(f"note: large pictures were cut into tiles with blended seams, because of {reasons}")
    return results, failed


def _pictures(model: Path, named: tuple[Path, ...]) -> list[tuple[Path, Path]]:
    """Those among files and folders, with the names of their results."""
    from fullconv.outputs import find_pictures

    if not named:
        raise FullconvError(
            "no picture was named; expected files, or folders of pictures, after the model.",
            command("fullconv", "predict", model, "photo.jpg"),
        )
    earlier: list[Path] = []
    found = list(find_pictures(named, left_out=earlier))
    if earlier:
        say(f"note: results of earlier runs are left out: {len(earlier)}, such as {earlier[0]}")
    return found


def _unread(failed: list[str], every: str) -> FullconvError:
    said = "\n  ".join([f"{len(failed)} of {every} could not be read:", *failed])
    return FullconvError(
        said,
        "copy or download them again, or leave them out; the others are done"
        if "million are read" not in said
        else "--huge   # reads pictures of any size",
    )


def _kinds(save: str) -> list[str]:
    """mask, overlay of "mask,overlay"."""
    from fullconv.outputs import OUTPUTS

    kinds = [kind.strip() for kind in save.split(",")]
    unknown = [kind for kind in kinds if kind not in OUTPUTS]
    if unknown:
        raise FullconvError(
            f"no output {unknown[0]!r}; --save takes {', '.join(OUTPUTS)}, with commas between.",
            "--save mask,overlay",
        )
    return kinds


def _largest(result: dict[str, Any]) -> str:
    """A picture's largest classes, in a line."""
    areas = sorted(result["area"].items(), key=lambda item: -item[1])[:4]
    return f"{result['source']}: " + ", ".join(f"{name} {share:.0%}" for name, share in areas)
