"""The command that sets runs side by side: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fullconv.cli.app import Json, app, emit, say


@app.command(sort_key=4)
def compare(
    *runs: Path,
    split: Literal["", "train", "val", "test"] = "",
    head: str = "",
    varying: str = "",
    out: Path | None = None,
    resamples: int = 4000,
    json: Json = False,
) -> None:
    """Set runs side by side, each against the first, and say which differences are real. Refused
    where their protocols differ.

    Parameters
    ----------
    runs
        Folders of runs, or files that `fullconv evaluate --counts` wrote; two or more.
    split
        Of the data set. Default: test where all were evaluated on it, else val.
    head
        Of models with several, which one. Default: the first.
    varying
        Lines of the protocol card that may differ because they are what is compared, with commas:
        pretrained_on, trained_on, test_time_augmentation.
    out
        Write a page (.html), or curves and differences as a picture (.png, .svg).
    resamples
        How often the pictures are drawn again for the intervals.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.evaluation.compare import compare as compare_runs

    lines = [line.strip() for line in varying.split(",") if line.strip()]
    found = compare_runs(*runs, split=split, head=head, varying=lines, resamples=resamples)
    if out is not None:
        found.save(out)
    emit(found.to_dict(), found.text(), json)
    if out is not None:
        say(f"written: {out}")
