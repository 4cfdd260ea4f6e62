"""The command that scores a model: evaluate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from fullconv.cli.app import Json, Split, app, name_of, print_result, progress_bar, say
from fullconv.core.errors import FullconvError
from fullconv.core.text import as_typed, plural, shell_command, truncated_list

if TYPE_CHECKING:
    from fullconv.evaluation.evaluate import Evaluation
    from fullconv.evaluation.per_image import SplitConfusions


ELSEWHERE = Path("reports")  # for what is no run


@app.command(sort_key=4)
def evaluate(
    model: Path,
    data: Path,
    *,
    split: Split = "test",
    heads: str = "",
    extra_inputs: Annotated[str, Parameter(alias="--inputs")] = "",
    ignore_rules: str = "",
    flip: bool = False,
    scales: str = "",
    report: str = "auto",
    counts: Path | None = None,
    json: Json = False,
) -> None:
    """Score a model on a split: mean IoU and its kin, at the images' original size.

    Parameters
    ----------
    model
        A model folder or run, hf://user/name, torchvision:fcn_resnet50, a .caffemodel or .pth.
    data
        The data set's folder, or the name of a published one: voc2012, camvid ...
    split
        Which part of it.
    heads
        Folders of a model's further heads in the data set, with commas, if not called like them.
    extra_inputs
        Folders of a model's extra inputs in the data set, with commas, if not called like them.
    ignore_rules
        Rules of `fullconv check`, with commas: what they found is left out.
    flip
        Average the probabilities of each image and its mirror image.
    scales
        Average them over the image at these sizes, with commas: 0.75,1,1.25.
    report
        An .html file, none, or auto: report-SPLIT.html in the run, or in reports/ without one.
    counts
        File (.npz) for what `fullconv compare` needs. Default: in the run, named by split.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.evaluation.evaluate import evaluate as evaluate_model
    from fullconv.evaluation.per_image import require_npz
    from fullconv.inference.options import parse_scales

    require_npz(counts)
    page = _place(model, split, report)
    folders: dict[str, Any] = {"heads": heads, "extra_inputs": extra_inputs, "ignore_rules": ignore_rules}
    given: dict[str, Any] = {"split": split, **folders}
    again = _again(model, data, {**given, "scales": scales}, flip)
    views: dict[str, Any] = {"flip": flip, "scales": parse_scales(scales)}
    with progress_bar("evaluated") as progress:
        result = evaluate_model(model, data, **given, **views, progress=progress)
    lost = _save(result, page, model, again) if page else None
    _print(result, model, data, None if lost else page, json)
    _keep(result.counts, model, counts)
    if lost:
        raise lost


def _keep(found: SplitConfusions | None, model: Path, path: Path | None) -> None:
    """Where it was asked for, or in the run; a run that cannot be written to is no error."""
    from fullconv.evaluation.per_image import run_containing, save_next_to_run

    assert found is not None
    if path is not None:
        found.save(path)
    elif (run := run_containing(model)) is not None:
        try:
            save_next_to_run(found, run)
        except FullconvError as error:
            say(f"note: {error}")


def _again(model: Path, data: Path, options: dict[str, str], flip: bool) -> str:
    """The command, with the options that are not as they are by themselves."""
    typed = {f"--{key.replace('_', '-')}": value for key, value in options.items() if value}
    words = [word for pair in typed.items() for word in pair]
    return shell_command("fullconv", "evaluate", model, data, *words, *["--flip"] * flip)


def _print(result: Evaluation, model: Path, data: Path, page: Path | None, json: bool) -> None:
    from fullconv.evaluation.metrics import metrics_table

    facts: dict[str, Any] = result.to_dict()
    card = facts["protocol"]
    views = card["test_time_augmentation"]
    how = "original size" + f", averaged over {views}" * (views != "none")
    images = plural(card["images"], "image")
    head = f"{as_typed(model)} on {data}, split {card['split']}, {images}, {how}"
    text = f"{head}\n\n{metrics_table(facts)}"
    if result.left_out:
        say(
            f"note: no masks in {data} for {truncated_list(result.left_out)}, not scored (--heads FOLDER)"
        )
    if page:
        facts["report"] = str(page)
        text += f"\n\nreport: {page}"
    print_result(facts, text, json, ahead=shell_command("fullconv", "predict", model, "IMAGES"))


def _place(model: Path, split: str, report: str) -> Path | None:
    """Of the page; None where none is wanted."""
    from fullconv.evaluation.per_image import run_containing

    if report == "none":
        return None
    if report != "auto":
        page = Path(report)
        if page.suffix.lower() not in (".html", ".htm"):
            raise FullconvError(
                f"the report {report} would be no page; expected auto, none or a name that ends "
                "in .html.",
                shell_command("--report", page.with_suffix(".html")),
            )
        return page
    run = run_containing(model)
    if run is not None and os.access(run, os.W_OK):
        return run / f"report-{split}.html"
    return ELSEWHERE / f"{name_of(model).replace(':', '-')}-{split}.html"


def _save(result: Evaluation, page: Path, model: Path, again: str) -> FullconvError | None:
    """Writes the report; what kept it from being written. The numbers are printed all the same."""
    from fullconv.evaluation.per_image import run_containing
    from fullconv.evaluation.report.build import save_report

    try:
        save_report(result, page, run=run_containing(model), repeat=again)
    except OSError as error:
        return FullconvError(
            f"the report {page} could not be written: {error.strerror}. The numbers are above.",
            f"{again} --report report.html",
        )
    return None


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
        Write a page (.html), or curves and differences as an image (.png, .svg).
    resamples
        How often the images are drawn again for the intervals.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.evaluation.compare import compare as compare_runs
    from fullconv.evaluation.report.comparison import comparison_text, save_comparison

    lines = [line.strip() for line in varying.split(",") if line.strip()]
    found = compare_runs(*runs, split=split, head=head, varying=lines, resamples=resamples)
    if out is not None:
        save_comparison(found, out)
    print_result(found.to_dict(), comparison_text(found), json)
    if out is not None:
        say(f"written: {out}")
