"""Staged training: FCN-32s, then 16s from it, then 8s from that (Long et al. 2015, section 4.3).

runs/<date>_<name>/  model, log and metrics of the last stage; config.toml of the whole training
                     32s/ 16s/  one run each; the next stage starts from its best model
                     stages.json  the result of each stage
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fullconv.core.files import atomic_write
from fullconv.core.i18n import msg
from fullconv.core.settings import Settings
from fullconv.core.text import align_columns, percent
from fullconv.models.run import Stage


def plan_stages(
    folder: Path, settings: Settings, strides: Sequence[int]
) -> list[tuple[Path, Settings]]:
    """Return the folder and the settings of each stage; the last one is trained in `folder`.

    Each stage multiplies the learning rates of the one before by `stage_lr_factor`.

    Args:
        settings: resolved, for the first stage.
        strides: coarsest first.
    """
    assert settings.lr is not None
    assert settings.backbone_lr is not None
    plan: list[tuple[Path, Settings]] = []
    for number, stride in enumerate(strides):
        factor = settings.stage_lr_factor**number
        lr, backbone_lr = settings.lr * factor, settings.backbone_lr * factor
        stage = replace(settings, staged=False, stride=stride, lr=lr, backbone_lr=backbone_lr)
        if plan:
            previous = str((plan[-1][0] / "model").resolve())
            stage = replace(stage, init_from=previous, pretrained=False)
        plan.append((folder if stride == strides[-1] else folder / f"{stride}s", stage))
    return plan


def summarize_stages(plan: Sequence[tuple[Path, Settings]]) -> tuple[Stage, ...]:
    """Read the results of all stages, and write them to stages.json."""
    stages: list[Stage] = []
    for folder, settings in plan:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        *_, last = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
        mean_iou = metrics["mean_iou"]
        before = stages[-1].mean_iou if stages else None
        stage = Stage(
            name=f"FCN-{settings.stride}s",
            model=str(folder / "model"),
            mean_iou=mean_iou,
            pixel_accuracy=metrics["pixel_accuracy"],
            gain=None if mean_iou is None or before is None else mean_iou - before,
            unchanged=config["training"].get("unchanged_at_start"),
            epochs=int(last.split(",")[0]),
            seconds=float(last.split(",")[-1]),
        )
        stages.append(stage)
    table = json.dumps([asdict(stage) for stage in stages], indent=1)
    atomic_write(plan[-1][0] / "stages.json", table)
    return tuple(stages)


def stages_table(stages: Sequence[Stage]) -> str:
    """Return a text table of what each stage gained and how long it took."""
    rows: list[Sequence[str]] = [
        ["", msg("mean IoU"), msg("gain"), msg("pixel accuracy"), msg("kept at start"), msg("time")]
    ]
    for stage in stages:
        rows.append([
            stage.name,
            percent(stage.mean_iou),
            "" if stage.gain is None else f"{100 * stage.gain:+.1f}",
            percent(stage.pixel_accuracy),
            "" if stage.unchanged is None else percent(stage.unchanged, 2),
            msg("{minutes:.1f} min", minutes=stage.seconds / 60),
        ])  # fmt: skip
    return align_columns(rows)
