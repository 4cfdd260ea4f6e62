"""The commands about datasets: check, convert, inspect, ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fullconv.cli.app import ANALYSIS, Json, Split, app, print_result, progress_bar
from fullconv.core.i18n import join, msg
from fullconv.core.progress import say, stage
from fullconv.core.text import shell_command, split_list

if TYPE_CHECKING:
    from fullconv.data.check.check import CheckReport


@app.command(sort_key=2)
def check(
    data: Path,
    /,
    *,
    layout: str | None = None,
    heads: str = "",
    extra_inputs: str = "",
    fix: Path | None = None,
    preview: Path | None = None,
    json: Json = False,
) -> int:
    """Validate a dataset and suggest fixes. Exits with code 1 if it finds errors.

    Args:
        data: Dataset folder, or the name of a published dataset: voc2012, camvid ...
        layout: Layout on disk. Default: recognized automatically.
        heads: Comma-separated extra mask folders to check, too.
        extra_inputs: Comma-separated folders of extra input channels; each image needs a file
            there.
        fix: Write a repaired copy to this new folder; the dataset itself is only read.
        preview: Write a PNG that shows the problems and a few correct pairs.
    """
    stage(msg("listing the files"))
    from fullconv.data.check.check import check as check_data
    from fullconv.data.check.repair import repair
    from fullconv.data.layouts import extra_folders
    from fullconv.data.layouts.paths import repair_command

    with progress_bar(msg("checked")) as progress:
        report = check_data(data, layout=layout, progress=progress)
    dataset = report.dataset
    head_reports = {
        name: check_data(extra_folders.head_dataset(dataset, name)) for name in split_list(heads)
    }
    if extra_inputs:
        extended = extra_folders.with_extra_inputs(dataset, split_list(extra_inputs))
        extra_folders.with_channel_statistics(extended)
    if fix is None:
        facts, text = _with_stride(report)
        for name, head_report in head_reports.items():
            text = join([text, "", msg("head {name}", name=name), "", head_report.text()])
        if head_reports:
            facts["heads"] = {name: report.to_dict() for name, report in head_reports.items()}
        ahead = _train_command(dataset.root, facts, heads, extra_inputs)
        if report.errors:
            ahead = repair_command(dataset.root)
        elif "train" not in dataset.splits:
            split = next(iter(dataset.splits))
            ahead = shell_command("fullconv", "evaluate", "MODEL", dataset.root, "--split", split)
        print_result(facts, text, json, ahead=ahead)  # before the preview, which may fail
    if preview is not None:
        from fullconv.data.check.preview import save_preview

        save_preview(report, preview)
        say(msg("preview: {path}", path=preview))
    if fix is None:
        return 1 if any(report.errors for report in (report, *head_reports.values())) else 0
    with progress_bar(msg("written")) as progress:
        repaired = repair(report, fix, progress=progress)
    print_result(repaired.to_dict(), repaired.text(), json)
    return 0


def _with_stride(report: CheckReport) -> tuple[dict[str, Any], str]:
    """Return a report as facts and text, with the output stride that its masks need."""
    from fullconv.data.check.iou_ceiling import estimate_on_sample

    dataset = report.dataset
    # On the split that `fullconv ceiling` reads completely.
    estimate = None if report.errors else estimate_on_sample(dataset, dataset.held_out)
    stride = estimate.recommended_stride if estimate else None
    facts = {**report.to_dict(), "recommended_stride": stride, "recommended_stride_reason": None}
    if not (estimate and stride):
        return facts, report.text()
    facts["recommended_stride_reason"] = estimate.reason
    line = msg("recommended: --stride {stride}: {reason}", stride=stride, reason=estimate.reason)
    ceiling = shell_command("fullconv", "ceiling", dataset.root)
    more = msg("  {command}   # reads all images", command=ceiling)
    if estimate.images == estimate.images_in_split:
        more = msg("  {command}   # shows each class", command=ceiling)
    return facts, join([report.text(), line, more])


def _train_command(
    root: Path | str, facts: dict[str, Any], heads: str = "", extra_inputs: str = ""
) -> str:
    """Return the command that trains on a dataset, at the output stride that its masks need."""
    stride = facts["recommended_stride"]
    options = {"--stride": stride, "--heads": heads, "--extra-inputs": extra_inputs}
    words = [word for option, value in options.items() if value for word in (option, value)]
    return shell_command("fullconv", "train", root, *words)


@app.command(sort_key=3)
def convert(
    source: Path,
    out: Path,
    /,
    *,
    layout: str | None = None,
    order: Literal["auto", "area", "file"] = "auto",
    json: Json = False,
) -> None:
    """Convert annotations or masks to images, id masks and a dataset.toml.

    Args:
        source: Folder of annotations and images, a JSON file, or the name of a published dataset.
            It is only read.
        out: New folder for the dataset.
        layout: labelme, coco, label-studio, ultralytics, class-masks, or a layout of masks such as
            voc or camvid. Default: recognized automatically.
        order: Overlapping COCO and Ultralytics shapes: the smaller on top (area) or the later in
            the file (file). auto: by area, except for COCO files written by labelme, which use file
            order.
    """
    stage(msg("listing the files"))
    from fullconv.data.annotations.convert import convert as convert_data

    with progress_bar(msg("converted")) as progress:
        result = convert_data(source, out, layout=layout, order=order, progress=progress)
    print_result(result.to_dict(), result.text(), json)


@app.command(group=ANALYSIS, sort_key=22)
def inspect(thing: str, /, *, preview: Path | None = None, json: Json = False) -> None:
    """Describe a backbone, a model or a dataset: grids and receptive fields, classes, sizes.

    Args:
        thing: Backbone name or config file, model (folder or hf://user/name), or dataset (folder or
            published name).
        preview: For datasets: write a PNG of a few images with their masks.
    """
    from fullconv.data.download.download import resolve_dataset

    folder = resolve_dataset(thing)  # a published dataset may be downloaded first
    name = thing if folder == Path(thing) else str(folder)
    stage(msg("loading PyTorch"))
    from fullconv.cli.inspect import inspect as describe

    facts, text = describe(name, preview=preview)
    ahead = shell_command("fullconv", "train", "DATA", "--backbone", name)
    if "layout" in facts:  # a dataset
        ahead = shell_command("fullconv", "check", name)
    elif "engine" in facts:  # a model
        ahead = shell_command("fullconv", "predict", name, "IMAGES")
    print_result(facts, text, json, ahead=ahead)


@app.command(group=ANALYSIS, sort_key=23)
def ceiling(data: Path, /, *, split: Split = "val", json: Json = False) -> None:
    """Estimate the highest mean IoU that each output stride can reach on a dataset's masks.

    Args:
        data: Dataset folder, or the name of a published dataset: voc2012, camvid ...
        split: Split of the dataset.
    """
    stage(msg("listing the files"))
    from fullconv.data.check.iou_ceiling import iou_ceiling

    with progress_bar(msg("evaluated")) as progress:
        result = iou_ceiling(data, split=split, progress=progress)
    facts = result.to_dict()
    print_result(facts, result.text(), json, ahead=_train_command(result.root, facts))
