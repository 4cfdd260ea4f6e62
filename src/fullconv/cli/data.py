"""The commands about data sets: check, inspect, convert, ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fullconv.cli.app import Json, Split, app, print_result, progress_bar, say
from fullconv.core.text import shell_command, split_list

if TYPE_CHECKING:
    from fullconv.data.check.check import CheckReport


@app.command(sort_key=2)
def check(
    data: Path,
    *,
    layout: str | None = None,
    heads: str = "",
    inputs: str = "",
    fix: Path | None = None,
    sheet: Path | None = None,
    json: Json = False,
) -> int:
    """Say what is wrong with a data set, and how to mend it. Exit code 1 where there are errors.

    Parameters
    ----------
    data
        The data set's folder, or the name of a published one: voc2012, camvid ...
    layout
        How it lies on disk. Default: what is recognised.
    heads
        Further folders of masks in it, with commas: each is checked, too.
    inputs
        Folders of depth and the like in it, with commas: whether each image has its file.
    fix
        Write a repaired copy into this new folder; the data set itself is only read.
    sheet
        Write a PNG with images of what was found, and of a few pairs as they should be.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.check.check import check as check_data
    from fullconv.data.check.repair import repair as fix_data
    from fullconv.data.layouts.extra_folders import (
        head_dataset,
        with_channel_statistics,
        with_extra_inputs,
    )
    from fullconv.data.layouts.paths import repair_command

    with progress_bar("checked") as progress:
        report = check_data(data, layout=layout, progress=progress)
    others = {name: check_data(head_dataset(report.dataset, name)) for name in split_list(heads)}
    if inputs:
        with_channel_statistics(with_extra_inputs(report.dataset, split_list(inputs)))
    if fix is None:
        facts, text = _with_stride(report)
        for name, other in others.items():
            text += f"\nhead {name}\n\n{other.text()}"
        facts |= {"heads": {name: of.to_dict() for name, of in others.items()}} if others else {}
        root = report.dataset.root
        ahead = repair_command(root) if report.errors else _training(root, facts, heads, inputs)
        print_result(facts, text, json, ahead=ahead)  # first: what cannot be drawn can be read
    if sheet is not None:
        from fullconv.data.check.preview import save_preview

        save_preview(report, sheet)
        say(f"sheet: {sheet}")
    if fix is None:
        return 1 if any(one.errors for one in (report, *others.values())) else 0
    with progress_bar("written") as progress:
        fixed = fix_data(report, fix, progress=progress)
    print_result(fixed.to_dict(), fixed.text(), json)
    return 0


def _with_stride(report: CheckReport) -> tuple[dict[str, Any], str]:
    """A report, and about the stride that its labels need where they can be read: on the split that
    `fullconv ceiling` counts whole."""
    from fullconv.data.check.iou_ceiling import estimate_on_sample

    data = report.dataset
    found = None if report.errors else estimate_on_sample(data, data.held_out)
    stride = found.recommended_stride if found else None
    facts = {**report.to_dict(), "recommended_stride": stride, "recommended_stride_reason": None}
    text = report.text()
    if found and stride:
        facts["recommended_stride_reason"] = found.reason
        whole = shell_command("fullconv", "ceiling", data.root)
        counts = "shows each class" if found.images == found.images_in_split else "counts all"
        text += f"recommended: --stride {stride}: {found.reason}\n  {whole}   # {counts}\n"
    return facts, text


def _training(root: Path | str, facts: dict[str, Any], heads: str = "", inputs: str = "") -> str:
    """The command that trains on a data set, at the stride that its labels need."""
    words = ["--stride", str(facts["recommended_stride"])] * bool(facts["recommended_stride"])
    words += ["--heads", heads] * bool(heads) + ["--extra-inputs", inputs] * bool(inputs)
    return shell_command("fullconv", "train", root, *words)


@app.command(sort_key=6)
def inspect(thing: str, *, sheet: Path | None = None, json: Json = False) -> None:
    """Say what a backbone, a model or a data set is: grids and receptive fields, classes, sizes.

    Parameters
    ----------
    thing
        A backbone's name or card, a model (a folder or hf://user/name), or a data set's folder or
        published name.
    sheet
        Of a data set: write a PNG with a few of its images, their labels over them.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.cli.inspect import inspect as inspect_thing
    from fullconv.data.download.download import resolve_dataset

    folder = resolve_dataset(thing)  # a published data set's, where the name is one
    named = thing if folder == Path(thing) else str(folder)
    facts, text = inspect_thing(named, sheet=sheet)
    print_result(facts, text, json, ahead=_after(named, facts))


def _after(named: str, facts: dict[str, Any]) -> str:
    if "layout" in facts:  # a data set
        return shell_command("fullconv", "check", named)
    if "engine" in facts:  # a model
        return shell_command("fullconv", "predict", named, "IMAGES")
    return shell_command("fullconv", "train", "DATA", "--backbone", named)


@app.command(sort_key=7)
def ceiling(data: Path, *, split: Split = "val", json: Json = False) -> None:
    """Say about the best mean IoU that each stride could reach on these labels.

    Parameters
    ----------
    data
        The data set's folder, or the name of a published one: voc2012, camvid ...
    split
        Which part of it.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.check.iou_ceiling import iou_ceiling as find_ceiling

    with progress_bar("counted") as progress:
        found = find_ceiling(data, split=split, progress=progress)
    facts = found.to_dict()
    print_result(facts, found.text(), json, ahead=_training(found.root, facts))


@app.command(sort_key=8)
def convert(
    source: Path,
    out: Path,
    *,
    layout: str | None = None,
    order: Literal["auto", "area", "file"] = "auto",
    json: Json = False,
) -> None:
    """Turn annotations or masks, however they lie, into images, id masks and a dataset.toml.

    Parameters
    ----------
    source
        A folder with the files and the images, one JSON file, or the name of a published data
        set. It is only read.
    out
        A new folder for the data set.
    layout
        labelme, coco, label-studio, ultralytics, or a layout of masks such as voc or camvid.
        Default: what is recognised.
    order
        Of COCO and Ultralytics shapes that overlap: the smaller on top (area), or the later in the
        file (file). auto takes the area, but the file's order where labelme made it.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.annotations.convert import convert as convert_data

    with progress_bar("converted") as progress:
        result = convert_data(source, out, layout=layout, order=order, progress=progress)
    print_result(result.to_dict(), result.text(), json)
