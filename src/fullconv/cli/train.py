"""The command that trains a model: train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Json, app, print_result
from fullconv.cli.usage import check_dataset, missing_argument
from fullconv.core.config_file import read_config
from fullconv.core.i18n import join, msg
from fullconv.core.progress import stage
from fullconv.core.settings import Settings
from fullconv.core.text import shell_command, truncated_list


@app.command(sort_key=4)
def train(
    data: Path | None = None,
    /,
    *,
    config: Path | None = None,
    resume: Path | None = None,
    out: Path | None = None,
    json: Json = False,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,
    typed: Annotated[frozenset[str], Parameter(parse=False)] = frozenset(),
) -> None:
    """Train a segmentation model on a dataset, after checking the dataset.

    Args:
        data: Dataset folder, or the name of a published dataset: voc2012, camvid ...
        config: Start from the options of an earlier run (its config.toml); options that you type
            override them.
        resume: Continue an interrupted run.
        out: Run folder. Default: runs/<date>_<name>.
    """
    options: dict[str, Any] = {name: getattr(settings, name) for name in typed}
    if config is not None:
        table = read_config(config)
        root = table.get("data", {}).get("root")
        data = data or (Path(root) if root else None)
        options = {**table.get("train", {}), **options}
        Settings.from_dict(options)
    if resume is None:
        if data is None:
            raise missing_argument("train", "DATA")
        check_dataset("train", data)
        if out is not None:
            from fullconv.models.run import require_no_run  # imports NumPy

            require_no_run(out)

    stage(msg("loading PyTorch"))
    from fullconv.core.metric_names import headline, never_predicted
    from fullconv.training.finalize import REPORT
    from fullconv.training.initial_model import require_backbone
    from fullconv.training.staged import stages_table
    from fullconv.training.train import train as train_model

    if resume is None and "backbone" in options:
        require_backbone(str(options["backbone"]))
    run = train_model(data, out=out, resume=resume, **options)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # another process of the same run prints

    lines: list[str] = [stages_table(run.stages)] if run.stages else []
    epoch = run.metrics["epoch"]
    lines.append(msg("{headline}, epoch {epoch}", headline=headline(run.metrics), epoch=epoch))
    if never := never_predicted(run.metrics):
        lines.append(msg("never predicted: {names}", names=truncated_list(never)))
    page = run.folder / REPORT
    lines += [msg("model: {path}", path=run.model), msg("report: {path}", path=page)]
    following: list[Any] = ["predict", run.folder, "IMAGES"]
    if "test" in run.splits:
        following = ["evaluate", run.folder, data or run.data, "--split", "test"]
    facts: dict[str, Any] = {"run": str(run.folder), "model": str(run.model), "report": str(page)}
    if run.stages:
        facts["stages"] = [asdict(trained) for trained in run.stages]
    ahead = shell_command("fullconv", *following)
    print_result({**facts, **run.metrics}, join(lines), json, ahead=ahead)


def typed_options(words: Sequence[str]) -> frozenset[str]:
    """Return the training options that were typed: only these override a configuration."""
    flags = {word.partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    return frozenset(
        option.name
        for option in fields(Settings)
        if flags & {f"__{option.name}", f"__no_{option.name}"}
    )
