"""The command that trains."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fullconv.cli.app import (
    Json,
    app,
    print_result,
)
from fullconv.core.settings import Settings
from fullconv.core.text import shell_command, truncated_list


@app.command(sort_key=3)
def train(
    data: Path | None = None,
    *,
    config: Path | None = None,
    resume: Path | None = None,
    out: Path | None = None,
    json: Json = False,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,
    given: Annotated[frozenset[str], Parameter(parse=False)] = frozenset(),
) -> None:
    """Train an FCN on a data set; it is checked first.

    Parameters
    ----------
    data
        The data set's folder, or the name of a published one: voc2012, camvid ...
    config
        Options of an earlier run (its config.toml); further options change single ones.
    resume
        A run's folder to continue where it stopped.
    out
        The run's folder. Default: runs/<date>_<name>.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.core.metric_names import headline, never_predicted
    from fullconv.core.settings import read_config
    from fullconv.training.finalize import REPORT
    from fullconv.training.initial_model import require_backbone
    from fullconv.training.staged import stages_table as stages_table
    from fullconv.training.train import train as train_model

    options = {name: getattr(settings, name) for name in given}
    if config is not None:
        table = read_config(config)
        root = table.get("data", {}).get("root")
        data = data or (Path(root) if root else None)
        options = {**table.get("train", {}), **options}
    if resume is None and "backbone" in options:
        require_backbone(str(options["backbone"]))
    run = train_model(data, out=out, resume=resume, **options)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # another process of the same run prints
    lines = [stages_table(run.stages)] if run.stages else []
    lines.append(f"{headline(run.metrics)}, epoch {run.metrics['epoch']}")
    if never := never_predicted(run.metrics):
        lines.append(f"never predicted: {truncated_list(never)}")
    page = run.folder / REPORT
    lines += [f"model: {run.model}", f"report: {page}"]
    ahead = shell_command("fullconv", "predict", run.folder, "IMAGES")  # nothing is left to score
    if "test" in run.splits:
        ahead = shell_command(
            "fullconv", "evaluate", run.folder, data or run.data, "--split", "test"
        )
    stages = {"stages": [asdict(stage) for stage in run.stages]} if run.stages else {}
    named = {"run": str(run.folder), "model": str(run.model), "report": str(page)}
    facts = {**named, **stages, **run.metrics}
    print_result(facts, "\n".join(lines), json, ahead=ahead)


def _options_in(argv: Sequence[str]) -> frozenset[str]:
    """The training options that were typed: these alone change a configuration."""
    typed = {word.partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    return frozenset(f.name for f in fields(Settings) if typed & {f"__{f.name}", f"__no_{f.name}"})
