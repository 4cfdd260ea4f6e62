"""The demo: drawn street scenes, a small FCN-8s from a fresh start, its score, and what to look at.

    demo/scenes/  demo/run/  demo/predictions.png  demo/report.html

No download. The scenes are always the same; the test scenes are not seen in training.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.settings import read_config
from fullconv.core.text import shell_command
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import load_dataset
from fullconv.data.synthetic import scenes as drawn
from fullconv.evaluation.evaluate import evaluate
from fullconv.evaluation.metrics import Metrics, confusion_matrix, metrics_table
from fullconv.evaluation.report.build import save_report
from fullconv.inference.predictor import Predictor
from fullconv.models.model import load_model
from fullconv.training.callbacks import CHECKPOINT
from fullconv.training.train import train
from fullconv.visualization import overlay as draw
from fullconv.visualization.contact_sheet import contact_sheet

# Small enough for two cores, with every stage of a ResNet; trained from a fresh start.
BACKBONE = "resnet10t"
OPTIONS: dict[str, Any] = {
    "backbone": BACKBONE,
    "pretrained": False,
    "stride": 8,
    "batch_size": 4,
    "lr": 0.003,
    "scale": (0.95, 1.15),
    "color_jitter": 0.0,
}
SHOWN = 6
SHEET = "predictions.png"
REPORT = "report.html"


def run_demo(
    out: str | Path, *, epochs: int = 28, seed: int = 0, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Draws the scenes, trains, evaluates on the test scenes, saves the sheet, out/predictions.png,
    and the report, out/report.html.

    Args:
        out: folder for all of it; a demo that is there is replaced, one that was stopped goes on.
        epochs: passes over the training scenes.
        seed: of the training.
        say: takes each line about how it goes.

    Returns:
        The metrics on the test scenes, as `Evaluation.to_dict()`.
    """
    out = Path(out)
    started = time.monotonic()
    scenes, run_folder = out / "scenes", out / "run"
    if run_folder.is_dir() and not (run_folder / "config.toml").is_file():
        raise FullconvError(f"{run_folder} is not a demo's.", "fullconv demo --out another_folder")
    if _stopped(run_folder, epochs, seed):
        say(f"going on with the training in {run_folder} that was stopped ...")
        run = train(resume=run_folder)
    else:
        shutil.rmtree(run_folder, ignore_errors=True)
        say(f"drawing street scenes in {scenes} ...")
        drawn.write(scenes)
        run = train(scenes, out=run_folder, epochs=epochs, seed=seed, **OPTIONS)
    result = evaluate(run.model, scenes, split="test")
    again = shell_command("fullconv", "evaluate", run.model, scenes, "--split", "test")
    save_report(result, out / REPORT, run=run_folder, repeat=again)
    save_sheet(Predictor(load_model(run.model)), scenes, out / SHEET)
    say(f"{time.monotonic() - started:.0f} seconds\n")
    return result.to_dict()


def _stopped(run: Path, epochs: int, seed: int) -> bool:
    """Whether a training of so many epochs was begun there and not ended."""
    if not (run / "checkpoint" / CHECKPOINT).is_file() or (run / "metrics.json").is_file():
        return False
    asked = read_config(run / "config.toml").get("train", {})
    return (asked.get("epochs"), asked.get("seed")) == (epochs, seed)


def text_of(result: dict[str, Any], out: Path) -> str:
    """What a demo came to, to read."""
    scenes = result["protocol"]["images"]
    look = f"look at {out / SHEET} and {out / REPORT}"
    return f"on {scenes} scenes it never saw:\n\n{metrics_table(result)}\n\n{look}"


def save_sheet(
    predictor: Predictor, data: str | Path, path: Path, *, split: str = "test", shown: int = SHOWN
) -> None:
    """A sheet of photo, truth, prediction and errors, from the best to the worst image.

    Args:
        predictor: a model.
        data: the data set's folder.
        path: of the PNG.
        split: whose images.
        shown: how many, spread evenly over the order by mean IoU.
    """
    dataset = load_dataset(data)
    labels = predictor.labels
    scored = []
    for pair in dataset.splits[split]:
        image, truth = read_image(pair.image), read_mask(pair.mask, dataset.labels)
        prediction = predictor.label_map(image)
        confusion = confusion_matrix(truth, prediction, len(labels))
        scored.append(
            (Metrics(labels.names, confusion).mean_iou, pair.name, image, truth, prediction)
        )
    scored.sort(key=lambda entry: -entry[0])
    chosen = sorted(
        set(np.linspace(0, len(scored) - 1, min(shown, len(scored))).round().astype(int))
    )
    rows, captions = [], []
    for index in chosen:
        mean_iou, name, image, truth, prediction = scored[index]
        errors = draw.error_map(truth, prediction, labels.ignore_index, image=image)
        rows.append([image, truth, prediction, errors])
        captions.append(f"{name}: mean IoU {mean_iou:.1%}, number {index + 1} of {len(scored)}")
    titles = ["photo", "truth", "prediction", "errors (red)"]
    contact_sheet(rows, titles, captions, labels=labels).save(path)
