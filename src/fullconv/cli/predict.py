"""The command that labels images: predict."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Json, Precision, app, print_result, progress_bar, say
from fullconv.core.errors import FullconvError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.text import plural, shell_command, split_list

if TYPE_CHECKING:
    from fullconv.inference.batch import BatchResult
    from fullconv.inference.manifest import Manifest
    from fullconv.inference.sharding import Shard

SHOWN = 20  # results that get a line
UNDONE = 100  # images whose error is spelt out


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
    """Average the probabilities of each image and its mirror image."""
    scales: str = ""
    """Average them over the image at these sizes, with commas: 0.75,1,1.25."""
    every: int = 1
    """Of videos: label each so-many-th frame; those between show the labels before."""

    def options(self, outputs: list[str]) -> Any:
        """The `fullconv.inference.options.PredictOptions`."""
        from fullconv.inference.options import PredictOptions, parse_class_names, parse_scales

        keep = "confidence" in outputs or "probability" in outputs
        scales, classes = parse_scales(self.scales), parse_class_names(self.classes)
        return PredictOptions(
            self.flip, scales, classes, self.unsure, self.min_area, keep, self.every
        )


@app.command(sort_key=5)
def predict(
    model: Path,
    *images: Path,
    out: Path = Path("predictions"),
    save: str = "mask,overlay",
    inputs: str = "",
    precision: Precision = "auto",
    compile: bool = False,
    tile: int | None = None,
    huge: bool = False,
    again: bool = False,
    json: Json = False,
    asked: Annotated[Asked | None, Parameter(name="*")] = None,
) -> None:
    """Label every pixel of images and videos.

    Parameters
    ----------
    model
        A model folder, the run that holds it, an exported file, hf://user/name on the Hugging Face
        hub, torchvision:fcn_resnet50, or a .caffemodel or .pth.
    images
        Images or videos: files, folders with all below, patterns such as "photos/**/*.jpg";
        @list.txt for a file with a path a line, - for the same from standard input. Results of
        earlier runs are left out.
    out
        Folder for the results. Images whose results are there already are not done again.
    save
        With commas: mask (ids as a palette PNG), color, overlay, json, confidence (grey),
        probability (of each class, for NumPy), polygons (GeoJSON), coco. The first four also of
        videos, as videos.
    inputs
        Folders with a file for each image, with commas, of a model that takes depth and the like.
    precision
        auto takes bfloat16 where it is faster and the model gives the same labels in it.
    compile
        Faster, after up to a minute at each of two sizes; on a CPU it needs a C++ compiler.
    tile
        Cut images that are longer into tiles of so many pixels; by default above 16.8 million.
    huge
        Read files of any size, also where a damaged one may only say that it is large.
    again
        Also images whose results are there already.
    json
        Print one JSON object and nothing else.
    """
    how = {"precision": precision, "compile": compile, "tile": tile}
    asked = asked or Asked()
    _predict(
        model,
        images,
        out,
        _kinds(save),
        how,
        asked,
        inputs=inputs,
        huge=huge,
        again=again,
        json=json,
    )


def _predict(
    model: Path,
    named: tuple[Path, ...],
    out: Path,
    outputs: list[str],
    how: dict[str, Any],
    asked: Asked,
    *,
    inputs: str,
    huge: bool,
    again: bool,
    json: bool,
) -> None:
    """As `predict`; `how` is what `fullconv.inference.predictor.load` wants to know."""
    from fullconv.data.io.limits import allow_large_images
    from fullconv.inference.batch import InputImage, predict_many
    from fullconv.inference.manifest import Manifest, job_hash
    from fullconv.inference.sharding import current_shard, wait_for_all
    from fullconv.inference.writers import refuse_overwriting_inputs
    from fullconv.models.hub import resolve_hub_name

    options = asked.options(outputs)
    share = current_shard()
    every = _images(model, named, share)
    refuse_overwriting_inputs(every, out, outputs)
    there = resolve_hub_name(model)
    predictor = _loaded(there, every, share, options=options, **how)
    mine = share.part(every)
    beside = predictor.extra_input_files([path for path, _ in mine], split_list(inputs))
    todo = [InputImage(*one, of) for one, of in zip(mine, beside, strict=True)]
    job = job_hash(there, {**how, **asdict(asked), "inputs": inputs})
    finished = Manifest(out, job, [one.stem for one in todo], rank=share.rank)
    with (
        allow_large_images() if huge else nullcontext(),
        progress_bar("predicted", shown=share.local == 0) as progress,
    ):
        done = predict_many(predictor, todo, finished, outputs, again=again, progress=progress)
    kind = _kind([one.path for one in todo])
    _note(done, finished, predictor, again, kind)
    text = _text(done, plural(len(todo), kind), share, out)
    # What failed has a hint of its own, and of several processes none is the last.
    ahead = "" if done.failed or share.of > 1 else _after(model, predictor)
    print_result(_facts(done, share), text, json, ahead=ahead)
    wait_for_all(share)
    if done.failed:
        raise _undone(done.failed, plural(len(todo), kind))


def _loaded(
    model: Path,
    every: list[tuple[Path, Path]],
    share: Shard,
    *,
    tile: int | None,
    options: Any,
    **how: Any,
) -> Any:
    """The model, on the device and with the threads of this process."""
    from fullconv.data.io.geotiff import raster_size
    from fullconv.inference.exported import is_exported, load_exported

    if is_exported(model):  # which needs no torch
        return load_exported(model, tile=tile, threads=share.threads(), options=options)
    from fullconv.inference.predictor import load

    if not any(raster_size(path) for path, _ in every):
        use_huge_pages()  # which take more memory, where windows shall keep to little
    share.use_threads()
    return load(model, device=share.device(), tile=tile, options=options, **how)


def _images(model: Path, named: tuple[Path, ...], share: Shard) -> list[tuple[Path, Path]]:
    """Those that are named, with the names of their results."""
    from fullconv.inference.input_files import STANDARD_INPUT, find_inputs

    if share.alone:
        say(
            f"note: SLURM_NTASKS is {share.of}: this is process 1 of {share.of} and does its part; "
            "start all of them with srun"
        )
    if share.of > 1 and Path(STANDARD_INPUT) in named:
        raise FullconvError(
            "standard input can be read by one process only, and not by each of "
            f"{share.of} processes.",
            shell_command("fullconv", "predict", model, "@list.txt"),
        )
    if not named:
        raise FullconvError(
            "no image was named; expected files, or folders of images, after the model.",
            shell_command("fullconv", "predict", model, "photo.jpg"),
        )
    earlier: list[Path] = []
    found = find_inputs(named, earlier)
    if earlier:
        say(f"note: results of earlier runs are left out: {len(earlier)}, such as {earlier[0]}")
    return found


def _kind(paths: list[Path]) -> str:
    """What they are, in a word."""
    from fullconv.data.io.video import is_video

    videos = sum(map(is_video, paths))
    return "image" if not videos else "video" if videos == len(paths) else "file"


def _note(done: BatchResult, finished: Manifest, predictor: Any, again: bool, kind: str) -> None:
    """What is worth a note."""
    if done.skipped:
        files = plural(done.skipped, f"{kind} was", f"{kind}s were")
        say(f"note: {files} done before and left as found (--overwrite does all again)")
    if finished.others and not again:
        results = plural(finished.others, f"{kind} has results", f"{kind}s have results")
        say(f"note: {results} of another model or other options in {finished.out}; made again")
    for result in done.results:
        if result.get("damaged"):
            say(f"note: {result['damaged']}")
    if predictor.inexact_operations:
        reasons = ", ".join(predictor.inexact_operations)
        say(f"note: large images were cut into tiles with blended seams, because of {reasons}")


def _facts(done: BatchResult, share: Shard) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "images": done.results,
        "failed": [one.message for one in done.failed],
    }
    facts["skipped"] = done.skipped
    if share.of > 1:
        facts["process"] = {"rank": share.rank, "of": share.of}
    return facts


def _text(done: BatchResult, every: str, share: Shard, out: Path) -> str:
    lines = [_largest(result) for result in done.results[:SHOWN]]
    if len(done.results) > SHOWN:
        lines.append(f"... and {len(done.results) - SHOWN} more")
    who = f"process {share.rank + 1} of {share.of}: " if share.of > 1 else ""
    return "\n".join([*lines, f"{who}{len(done.results)} of {every} -> {out}"])


def _after(model: Path, predictor: Any) -> str:
    if predictor.extra_inputs:  # which no server takes
        return shell_command("fullconv", "evaluate", model, "DATA")
    return shell_command("fullconv", "serve", model)


def _undone(failed: list[FullconvError], every: str) -> FullconvError:
    from fullconv.data.io.limits import TooLargeError

    more = [f"and {len(failed) - UNDONE} more; --json names them all"] * (len(failed) > UNDONE)
    named = [one.message for one in failed[:UNDONE]]
    said = [f"{len(failed)} of {every} could not be labelled:", *named, *more]
    hints = [
        "--allow-huge   # reads images of any size"
        for one in failed
        if isinstance(one, TooLargeError)
    ]
    hints += [
        one.hint for one in failed if one.hint and not one.hint.startswith("copy or download ")
    ]
    hints.append("copy or download them again, or leave them out; the others are done")
    return FullconvError("\n  ".join(said), hints[0])


def _kinds(save: str) -> list[str]:
    """mask, overlay of "mask,overlay"."""
    from fullconv.inference.result_files import OUTPUTS

    kinds = [kind.strip() for kind in save.split(",")]
    unknown = [kind for kind in kinds if kind not in OUTPUTS]
    if unknown:
        raise FullconvError(
            f"no output {unknown[0]!r}; --save takes {', '.join(OUTPUTS)}, with commas between.",
            "--save mask,overlay",
        )
    return kinds


def _largest(result: dict[str, Any]) -> str:
    """An image's largest classes, in a line."""
    areas = sorted(result["area"].items(), key=lambda item: -item[1])[:4]
    return f"{result['source']}: " + ", ".join(f"{name} {share:.0%}" for name, share in areas)
