"""The commands that evaluate a model and compare runs: evaluate, compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from fullconv.cli.app import (
    ANALYSIS,
    Device,
    Flag,
    Json,
    Split,
    app,
    model_name,
    print_result,
    progress_bar,
)
from fullconv.cli.usage import check_dataset, check_model, missing_argument
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.progress import say, stage
from fullconv.core.text import as_typed, shell_command, split_list, truncated_list

REPORTS = Path("reports")  # of models that belong to no run


@app.command(sort_key=5)
def evaluate(
    model: Path,
    data: Path,
    /,
    *,
    split: Split = "test",
    heads: str = "",
    extra_inputs: str = "",
    ignore_rules: str = "",
    flip: Flag = False,
    scales: str = "",
    device: Device = "auto",
    report: str = "auto",
    counts: Path | None = None,
    json: Json = False,
) -> None:
    """Measure the accuracy of a model on a split of a dataset, at the original image size.

    Args:
        model: Run or model folder, exported file, hf://user/name, torchvision:fcn_resnet50,
            .caffemodel or .pth.
        data: Dataset folder, or the name of a published dataset: voc2012, camvid ...
        split: Split of the dataset.
        heads: Comma-separated mask folders of additional heads, if they are not named like the
            heads.
        extra_inputs: Comma-separated folders of extra input channels, if they are not named like in
            training.
        ignore_rules: Comma-separated rules of `fullconv check`; what they found is left out.
        flip: Test-time augmentation: average each image and its mirror image.
        scales: Test-time augmentation: average the image at these comma-separated sizes:
            0.75,1,1.25.
        device: Device to run on.
        report: Report: an .html file, none, or auto (report-SPLIT.html in the run, else in
            reports/).
        counts: Where to save what `fullconv compare` needs (.npz). Default: in the run.
    """
    check_model("evaluate", model, data)
    check_dataset("evaluate", data)
    stage(msg("loading the model"))
    from fullconv.evaluation.evaluate import evaluate as evaluate_model
    from fullconv.evaluation.metrics import metrics_table
    from fullconv.evaluation.per_image import require_npz, run_containing, save_next_to_run
    from fullconv.inference.options import parse_scales

    require_npz(counts)
    run = run_containing(model)
    page = _report_page(model, run, split, report)
    choices: dict[str, Any] = {"split": split, "heads": heads, "ignore_rules": ignore_rules}
    typed = {**choices, "extra_inputs": extra_inputs, "scales": scales}
    words = [w for k, v in typed.items() if v for w in (f"--{k.replace('_', '-')}", v)]
    command = shell_command("fullconv", "evaluate", model, data, *words, *["--flip"] * flip)
    loaded: Any = model
    if device != "auto":
        from fullconv.inference.predictor import load

        loaded = load(model, device=device)
    with progress_bar(msg("evaluated")) as progress:
        result = evaluate_model(
            loaded,
            data,
            **choices,
            extra_inputs=extra_inputs,
            flip=flip,
            scales=parse_scales(scales),
            progress=progress,
        )
    problem = _save_report(result, page, run, command) if page else None

    facts: dict[str, Any] = result.to_dict()
    card = facts["protocol"]
    count = nmsg("{count} image", "{count} images", card["images"])
    setting = [msg("split {split}", split=card["split"]), count, msg("original size")]
    if (augmentation := card["test_time_augmentation"]) != "none":
        setting.append(msg("averaged over {a}", a=augmentation))
    values = {"model": as_typed(model), "data": data, "setting": join(setting, ", ")}
    lines: list[str] = [msg("{model} on {data}, {setting}", **values), "", metrics_table(facts)]
    if result.left_out:
        names = truncated_list(result.left_out)
        note = msg(
            "note: {data} has no masks for {names}, which are not scored (--heads FOLDER)",
            data=data,
            names=names,
        )
        say(note)
    if page and not problem:
        facts["report"] = str(page)
        lines += ["", msg("report: {path}", path=page)]
    ahead = shell_command("fullconv", "predict", model, "IMAGES")
    print_result(facts, join(lines), json, ahead=ahead)

    assert result.counts is not None
    if counts is not None:
        result.counts.save(counts)
    elif run is not None:
        try:
            save_next_to_run(result.counts, run)
        except FullconvError as error:  # a run that is read-only
            say(msg("note: {problem}", problem=error.message))
    if problem:
        raise problem


def _report_page(model: Path, run: Path | None, split: str, report: str) -> Path | None:
    """Return the path of the report; None if there shall be none."""
    if report == "none":
        return None
    if report != "auto":
        page = Path(report)
        if page.suffix.lower() not in (".html", ".htm"):
            message = msg(
                "the report {page} is no HTML file; expected auto, none or a name that ends in "
                ".html.",
                page=report,
            )
            raise FullconvError(message, shell_command("--report", page.with_suffix(".html")))
        return page
    if run is not None and os.access(run, os.W_OK):
        return run / f"report-{split}.html"
    return REPORTS / f"{model_name(model).replace(':', '-')}-{split}.html"


def _save_report(result: Any, page: Path, run: Path | None, command: str) -> FullconvError | None:
    """Write the report, or return why it could not be written: the numbers are printed anyway."""
    from fullconv.evaluation.report.build import save_report

    try:
        save_report(result, page, run=run, repeat=command)
    except OSError as error:
        values = {"page": page, "reason": error.strerror}
        message = msg(
            "the report {page} could not be written: {reason}. The numbers are above.", **values
        )
        return FullconvError(message, f"{command} --report report.html")
    return None


@app.command(group=ANALYSIS, sort_key=21)
def compare(
    *runs: Path,
    split: Literal["", "train", "val", "test"] = "",
    head: str = "",
    allow_different: str = "",
    out: Path | None = None,
    resamples: int = 4000,
    json: Json = False,
) -> None:
    """Compare runs with the first one, and tell which differences are significant.

    Runs with different evaluation protocols are refused.

    Args:
        runs: Two or more runs, or files that `fullconv evaluate --counts` wrote.
        split: Split of the dataset. Default: test if all runs were evaluated on it, else val.
        head: Head of models with several heads. Default: the first.
        allow_different: Comma-separated lines of the protocol that may differ because they are what
            is compared: pretrained_on, trained_on, test_time_augmentation.
        out: Write a page (.html), or curves and differences as an image (.png, .svg).
        resamples: Bootstrap resamples for the confidence intervals.
    """
    if not runs:
        raise missing_argument("compare", "RUNS")
    stage(msg("reading the runs"))
    from fullconv.evaluation.compare import compare as compare_runs
    from fullconv.evaluation.report.comparison import comparison_text, save_comparison

    comparison = compare_runs(
        *runs, split=split, head=head, varying=split_list(allow_different), resamples=resamples
    )
    if out is not None:
        save_comparison(comparison, out)
    print_result(comparison.to_dict(), comparison_text(comparison), json)
    if out is not None:
        say(msg("written: {path}", path=out))
