"""The command that segments images: predict."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Flag, Json, RuntimeOptions, app, print_result, progress_bar
from fullconv.cli.usage import check_model, missing_argument
from fullconv.core.errors import FullconvError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.progress import say, stage
from fullconv.core.text import percent, shell_command, split_list, truncated_list

if TYPE_CHECKING:
    from fullconv.inference.batch import BatchResult
    from fullconv.inference.manifest import Manifest
    from fullconv.inference.sharding import Shard

LISTED_RESULTS = 20  # results that get a line
LISTED_ERRORS = 100  # images whose error is printed


@dataclass(frozen=True)
class PredictionChoices:
    """The options that change labels, as they are typed."""

    classes: str = ""
    """Comma-separated classes to keep; all other pixels are ignored."""
    min_confidence: float | None = None
    """Ignore pixels whose class has a lower probability than this fraction."""
    min_area: int = 0
    """Merge regions of fewer pixels into the class that surrounds them most."""
    flip: Flag = False
    """Test-time augmentation: average each image and its mirror image."""
    scales: str = ""
    """Test-time augmentation: average the image at these comma-separated sizes: 0.75,1,1.25."""
    frame_step: int = 1
    """For videos: segment every Nth frame and reuse its mask for the frames in between."""

    def options(self, outputs: list[str]) -> Any:
        """Return the `fullconv.inference.options.PredictOptions`."""
        from fullconv.inference.options import PredictOptions, parse_scales

        return PredictOptions(
            flip=self.flip,
            scales=parse_scales(self.scales),
            classes=tuple(split_list(self.classes)),
            min_confidence=self.min_confidence,
            min_area=self.min_area,
            keep_scores="confidence" in outputs or "probability" in outputs,
            frame_step=self.frame_step,
        )


@app.command(sort_key=6)
def predict(
    model: Path,
    /,
    *images: Path,
    out: Path = Path("predictions"),
    save: str = "mask,overlay",
    extra_inputs: str = "",
    runtime: Annotated[RuntimeOptions | None, Parameter(name="*")] = None,
    allow_huge: Flag = False,
    overwrite: Flag = False,
    json: Json = False,
    choices: Annotated[PredictionChoices | None, Parameter(name="*")] = None,
) -> None:
    """Segment images and videos.

    Args:
        model: Run or model folder, exported file, hf://user/name, torchvision:fcn_resnet50,
            .caffemodel or .pth.
        images: Images or videos: files, folders, or patterns such as "photos/**/*.jpg"; @list.txt
            reads a path per line from a file, - from standard input. Results of earlier runs are
            left out.
        out: Output folder. Images that already have results there are skipped.
        save: Comma-separated outputs: mask (palette PNG), color, overlay, json, confidence
            (grayscale), probability (NumPy), polygons (GeoJSON), coco. The first four also for
            videos.
        extra_inputs: Comma-separated folders of extra input channels, if the model has any.
        allow_huge: Read files of any size, even if a damaged header may exaggerate it.
        overwrite: Redo images that already have results.
    """
    runtime, choices = runtime or RuntimeOptions(), choices or PredictionChoices()
    if not images:
        raise missing_argument("predict", "IMAGES")
    check_model("predict", model, *images)
    outputs = _parse_outputs(save)

    # Everything below may import torch, or is typed for many images.
    stage(msg("listing the images"))
    from fullconv.data.io.limits import allow_large_images
    from fullconv.data.io.video import is_video
    from fullconv.inference.batch import InputImage, predict_many
    from fullconv.inference.manifest import Manifest, job_hash
    from fullconv.inference.sharding import current_shard, wait_for_all
    from fullconv.inference.writers import refuse_overwriting_inputs
    from fullconv.models.hub import resolve_hub_name

    options = choices.options(outputs)
    shard = current_shard()
    every_image = _find_images(model, images, shard)
    refuse_overwriting_inputs(every_image, out, outputs)
    own_images = shard.part(every_image)
    paths = [path for path, _ in own_images]
    videos = sum(map(is_video, paths))
    noun = "image" if not videos else "video" if videos == len(paths) else "file"

    stage(msg("loading the model"))
    folder = resolve_hub_name(model)
    predictor = _load(folder, every_image, shard, runtime, options)
    extra_files = predictor.extra_input_files(paths, split_list(extra_inputs))
    todo = [InputImage(*image, files) for image, files in zip(own_images, extra_files, strict=True)]
    job_options = {**asdict(runtime), **asdict(choices), "extra_inputs": extra_inputs}
    del job_options["device"]  # a job may continue on another device
    job = job_hash(folder, job_options)
    manifest = Manifest(out, job, [image.stem for image in todo], rank=shard.rank)
    with (
        allow_large_images() if allow_huge else nullcontext(),
        progress_bar(msg("segmented"), visible=shard.local_rank == 0) as progress,
    ):
        done = predict_many(
            predictor, todo, manifest, outputs, overwrite=overwrite, progress=progress
        )

    _print_notes(done, manifest, predictor, overwrite, noun)
    failed = [error.message for error in done.failed]
    facts = {"images": done.results, "failed": failed, "skipped": done.skipped}
    if shard.count > 1:
        facts["process"] = {"rank": shard.rank, "of": shard.count}
    ahead = ""  # failures have hints of their own, and of several processes none is the last
    if not done.failed and shard.count == 1:
        ahead = shell_command("fullconv", "serve", model)
        if predictor.extra_inputs:  # the server accepts images only
            ahead = shell_command("fullconv", "evaluate", model, "DATA")
    print_result(facts, _results_text(done, len(todo), noun, shard, out), json, ahead=ahead)
    wait_for_all(shard)
    if done.failed:
        raise _failure(done.failed, len(todo), noun)


def _parse_outputs(save: str) -> list[str]:
    from fullconv.inference.result_files import OUTPUTS

    outputs = split_list(save)
    for output in outputs or [save]:
        if output not in OUTPUTS:
            values = {"output": output, "outputs": truncated_list(list(OUTPUTS))}
            message = msg("there is no output {output!r}; --save accepts {outputs}.", **values)
            raise FullconvError(message, "--save mask,overlay")
    return outputs


def _load(
    model: Path,
    images: list[tuple[Path, Path]],
    shard: Shard,
    runtime: RuntimeOptions,
    options: Any,
) -> Any:
    """Return the predictor, on the device and with the threads of this process."""
    from fullconv.data.io.geotiff import raster_size
    from fullconv.inference.exported import is_exported, load_exported

    if is_exported(model):  # needs no torch
        return load_exported(model, tile=runtime.tile, threads=shard.threads(), options=options)
    from fullconv.inference.predictor import load

    if not any(raster_size(path) for path, _ in images):
        use_huge_pages()  # these take more memory, and windows are read to save memory
    shard.set_torch_threads()
    placed = asdict(runtime)
    if runtime.device == "auto":
        placed["device"] = shard.device()
    return load(model, options=options, **placed)


def _find_images(model: Path, paths: tuple[Path, ...], shard: Shard) -> list[tuple[Path, Path]]:
    """Return the images that are named, with the names of their results."""
    from fullconv.inference.input_files import STANDARD_INPUT, find_inputs

    count = shard.count
    if shard.maybe_alone:
        note = msg(
            "note: SLURM_NTASKS is {count}: this is process 1 of {count} and does its share; "
            "start all of them with srun",
            count=count,
        )
        say(note)
    if count > 1 and Path(STANDARD_INPUT) in paths:
        message = msg(
            "standard input can be read by one process only, not by {count} processes.", count=count
        )
        raise FullconvError(message, shell_command("fullconv", "predict", model, "@list.txt"))
    earlier: list[Path] = []
    images = find_inputs(paths, earlier)
    if earlier:
        note = nmsg(
            "note: left out {count} result of earlier runs: {example}",
            "note: left out {count} results of earlier runs, such as {example}",
            len(earlier),
            example=earlier[0],
        )
        say(note)
    return images


def _counted(count: int, noun: str) -> Message:
    return {
        "image": nmsg("{count} image", "{count} images", count),
        "video": nmsg("{count} video", "{count} videos", count),
        "file": nmsg("{count} file", "{count} files", count),
    }[noun]


def _print_notes(
    done: BatchResult, manifest: Manifest, predictor: Any, overwrite: bool, noun: str
) -> None:
    if done.skipped:
        files = _counted(done.skipped, noun)
        say(msg("note: skipped {files} with results (--overwrite redoes them)", files=files))
    if manifest.others and not overwrite:
        values = {"files": _counted(manifest.others, noun), "folder": manifest.out}
        note = msg(
            "note: redid {files} whose results in {folder} are of another model or of other "
            "options",
            **values,
        )
        say(note)
    for result in done.results:
        if result.get("damaged"):
            say(msg("note: {problem}", problem=result["damaged"]))
    if predictor.inexact_operations:
        reasons = join(predictor.inexact_operations, ", ")
        note = msg(
            "note: large images were cut into tiles with blended seams, because of {reasons}",
            reasons=reasons,
        )
        say(note)


def _results_text(done: BatchResult, count: int, noun: str, shard: Shard, out: Path) -> Message:
    """Return the largest classes of each image, a line each, and how many results there are."""
    lines: list[str] = []
    for result in done.results[:LISTED_RESULTS]:
        largest = sorted(result["area"].items(), key=lambda item: -item[1])[:4]
        classes = ", ".join(f"{name} {percent(share, 0)}" for name, share in largest)
        lines.append(msg("{image}: {classes}", image=result["source"], classes=classes))
    if len(done.results) > LISTED_RESULTS:
        lines.append(msg("... and {count} more", count=len(done.results) - LISTED_RESULTS))
    values = {"done": len(done.results), "files": _counted(count, noun), "folder": out}
    if shard.count > 1:
        values |= {"rank": shard.rank + 1, "processes": shard.count}
        lines.append(msg("process {rank} of {processes}: {done} of {files} -> {folder}", **values))
    else:
        lines.append(msg("{done} of {files} -> {folder}", **values))
    return join(lines)


def _failure(failed: list[FullconvError], count: int, noun: str) -> FullconvError:
    """Return one error for all images that failed, with the most useful of their hints."""
    from fullconv.data.io.limits import TooLargeError

    values = {"failed": len(failed), "files": _counted(count, noun)}
    lines: list[str] = [msg("{failed} of {files} could not be segmented:", **values)]
    lines += [error.message for error in failed[:LISTED_ERRORS]]
    if len(failed) > LISTED_ERRORS:
        rest = len(failed) - LISTED_ERRORS
        lines.append(msg("and {count} more; --json lists them all", count=rest))
    message = join(lines, "\n  ")
    if any(isinstance(error, TooLargeError) for error in failed):
        return FullconvError(message, msg("--allow-huge   # reads images of any size"))
    for error in failed:
        if error.hint and not error.hint.startswith("copy or download "):
            return FullconvError(message, error.hint)
    hint = msg("copy or download them again, or leave them out; the others are done")
    return FullconvError(message, hint)
