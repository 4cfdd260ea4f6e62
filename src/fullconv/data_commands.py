"""The commands about data sets: check, inspect, convert, ceiling."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fullconv.terminal import Json, Split, app, counting, emit


@app.command(sort_key=2)
def check(
    data: Path, *, layout: str | None = None, fix: Path | None = None, json: Json = False
) -> int:
    """Say what is wrong with a data set, and how to mend it. Exit code 1 where there are errors.

    Parameters
    ----------
    data
        The data set's folder.
    layout
        How it lies on disk. Default: what is recognised.
    fix
        Write a repaired copy into this new folder; the data set itself is only read.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.check import check as check_data
    from fullconv.data.fix import fix as fix_data

    with counting("checked") as progress:
        report = check_data(data, layout=layout, progress=progress)
    if fix is None:
        emit(report.to_dict(), report.text(), json)
        return 1 if report.errors else 0
    with counting("written") as progress:
        fixed = fix_data(report, fix, progress=progress)
    emit(fixed.to_dict(), fixed.text(), json)
    return 0


@app.command(sort_key=6)
def inspect(thing: str, *, json: Json = False) -> None:
    """Say what a backbone, a model or a data set is: grids and receptive fields, classes, sizes.

    Parameters
    ----------
    thing
        A backbone's name or card, a model folder, or a data set's folder.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.inspect import inspect as inspect_thing

    facts, text = inspect_thing(thing)
    emit(facts, text, json)


@app.command(sort_key=7)
def ceiling(data: Path, *, split: Split = "val", json: Json = False) -> None:
    """Say about the best mean IoU that each stride could reach on these labels.

    Parameters
    ----------
    data
        The data set's folder.
    split
        Which part of it.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.ceiling import ceiling as find_ceiling

    with counting("counted") as progress:
        found = find_ceiling(data, split=split, progress=progress)
    emit(found.to_dict(), found.text(), json)


@app.command(sort_key=8)
def convert(
    source: Path,
    out: Path,
    *,
    layout: Literal["labelme", "coco"] | None = None,
    order: Literal["auto", "area", "file"] = "auto",
    json: Json = False,
) -> None:
    """Turn the JSON files of labelme or COCO into pictures, id masks and a dataset.toml.

    Parameters
    ----------
    source
        A folder with the files and the pictures, or one file. It is only read.
    out
        A new folder for the data set.
    layout
        Which of the two it is. Default: what the files hold.
    order
        Of COCO shapes that overlap: the smaller on top (area), or the later in the file (file).
        auto takes the file's where labelme made it.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.data.convert import convert as convert_data

    with counting("converted") as progress:
        result = convert_data(source, out, layout=layout, order=order, progress=progress)
    emit(result.to_dict(), result.text(), json)
