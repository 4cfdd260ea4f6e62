"""Training in stages: FCN-32s, then 16s from it, then 8s from that (Long et al. 2015, section 4.3).

runs/<date>_<name>/  the last stage's model, log and metrics, and config.toml of the whole
                     32s/ 16s/  a run each; the next stage starts from its best model
                     stages.json  what each came to
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from fullconv.core.settings import Settings
from fullconv.models.run import Stage


def train_stages(
    folder: Path,
    settings: Settings,
    strides: Sequence[int],
    fit: Callable[[Path, Settings], None],
) -> tuple[Stage, ...]:
    """Trains one stage after the other; those that are done already are left as they are.

    Args:
        folder: of the whole.
        settings: decided, for the first stage. Each further one has `stage_rate` times the rates of
            the one before.
        strides: coarsest first.
        fit: trains in a folder with its settings, or goes on with what was stopped there.
    """
    stages: list[Stage] = []
    for number, stride in enumerate(strides):
        part = folder if stride == strides[-1] else folder / f"{stride}s"
        factor = settings.stage_lr_factor**number
        assert settings.lr is not None
        assert settings.backbone_lr is not None
        stage = replace(
            settings,
            staged=False,
            stride=stride,
            lr=settings.lr * factor,
            backbone_lr=settings.backbone_lr * factor,
        )
        if stages:
            start = str(Path(stages[-1].model).resolve())
            stage = replace(stage, init_from=start, pretrained=False)
        if not (part / "metrics.json").is_file():
            fit(part, stage)
        stages.append(_stage_of(part, f"FCN-{stride}s", stages[-1] if stages else None))
    (folder / "stages.json").write_text(
        json.dumps([asdict(stage) for stage in stages], indent=1), encoding="utf-8"
    )
    return tuple(stages)


def stages_table(stages: Sequence[Stage]) -> str:
    """As text: what each stage gained, and what it cost."""
    lines = [
        f"{'':<10}{'mean IoU':>9}{'gain':>8}{'pixel acc.':>12}{'kept at start':>15}{'time':>10}"
    ]
    for s in stages:
        gain = "" if s.gain is None else f"{100 * s.gain:+.1f}"
        kept = "" if s.unchanged is None else f"{s.unchanged:.2%}"
        iou, accuracy = (
            "-" if value is None else f"{value:.1%}" for value in (s.mean_iou, s.pixel_accuracy)
        )
        time = f"{s.seconds / 60:.1f} min"
        lines.append(f"{s.name:<10}{iou:>9}{gain:>8}{accuracy:>12}{kept:>15}{time:>10}")
    return "\n".join(lines)


def _stage_of(folder: Path, name: str, before: Stage | None) -> Stage:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
    rows = (folder / "log.csv").read_text(encoding="utf-8").splitlines()[1:]
    last = rows[-1].split(",")
    mean_iou, earlier = metrics["mean_iou"], before.mean_iou if before else None
    return Stage(
        name=name,
        model=str(folder / "model"),
        mean_iou=mean_iou,
        pixel_accuracy=metrics["pixel_accuracy"],
        gain=mean_iou - earlier if None not in (mean_iou, earlier) else None,
        unchanged=config["training"].get("unchanged_at_start"),
        epochs=int(last[0]),
        seconds=float(last[-1]),
    )
