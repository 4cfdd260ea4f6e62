"""The command that trains and evaluates a small model on synthetic street scenes: demo.

    demo/scenes/  demo/run/  demo/predictions.png  demo/report.html

The scenes are always the same; the test scenes are not used in training.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullconv.cli.app import app, print_result
from fullconv.core.config_file import read_config
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.progress import say, stage
from fullconv.core.settings import TrainOptions
from fullconv.core.text import percent, shell_command

if TYPE_CHECKING:
    from fullconv.inference.predictor import Predictor

# Small enough for two cores, with every stride of a ResNet; trained from random weights.
OPTIONS: TrainOptions = {
    "backbone": "resnet10t",
    "pretrained": False,
    "stride": 8,
    "batch_size": 4,
    "lr": 0.003,
    "scale": (0.95, 1.15),
    "color_jitter": 0.0,
}
SHEET, SHEET_ROWS, REPORT = "predictions.png", 6, "report.html"


@app.command(sort_key=1)
def demo(*, out: Path = Path("demo"), epochs: int = 28, seed: int = 0) -> None:
    """Train and evaluate on synthetic street scenes. Downloads nothing.

    Args:
        out: Output folder.
        epochs: Passes over the scenes. The default takes a few minutes on two cores.
        seed: Random seed for training. The scenes never change.
    """
    metrics = run_demo(out, epochs=epochs, seed=seed)
    from fullconv.evaluation.metrics import metrics_table

    head = nmsg(
        "on {count} scene that it never saw:",
        "on {count} scenes that it never saw:",
        metrics["protocol"]["images"],
    )
    look = msg("look at {sheet} and {report}", sheet=out / SHEET, report=out / REPORT)
    text = join([head, "", metrics_table(metrics), "", look])
    ahead = shell_command("fullconv", "predict", out / "run", out / "scenes/images/test")
    print_result(metrics, text, False, ahead=ahead)


def run_demo(out: str | Path, *, epochs: int = 28, seed: int = 0) -> dict[str, Any]:
    """Train on the scenes, write a report and a sheet, and return the metrics on the test scenes.

    A finished demo in the folder is replaced; an interrupted one is continued.

    Raises:
        FullconvError: out/run is another folder than a demo's.
    """
    out, started = Path(out), time.monotonic()
    scenes, run_folder = out / "scenes", out / "run"
    if run_folder.is_dir() and not (run_folder / "config.toml").is_file():
        message = msg("{folder} is not the run of a demo.", folder=run_folder)
        raise FullconvError(message, "fullconv demo --out another_folder")
    stage(msg("loading PyTorch"))
    from fullconv.data.synthetic.scenes import write
    from fullconv.evaluation.evaluate import evaluate
    from fullconv.evaluation.report.build import save_report
    from fullconv.inference.predictor import Predictor
    from fullconv.models.model import load_model
    from fullconv.training.train import train

    interrupted = False
    finished = (run_folder / "metrics.json").is_file()
    if (run_folder / "checkpoint/last.ckpt").is_file() and not finished:
        earlier = read_config(run_folder / "config.toml").get("train", {})
        interrupted = (earlier.get("epochs"), earlier.get("seed")) == (epochs, seed)
    if interrupted:
        say(msg("continuing the interrupted training in {folder}", folder=run_folder))
        run = train(resume=run_folder)
    else:
        shutil.rmtree(run_folder, ignore_errors=True)
        stage(msg("drawing street scenes in {folder}", folder=scenes))
        write(scenes)
        options: TrainOptions = {**OPTIONS, "epochs": epochs, "seed": seed}
        run = train(scenes, out=run_folder, **options)
    result = evaluate(run.model, scenes, split="test")
    command = shell_command("fullconv", "evaluate", run.model, scenes, "--split", "test")
    save_report(result, out / REPORT, run=run_folder, repeat=command)
    save_sheet(Predictor(load_model(run.model)), scenes, out / SHEET)
    say(msg("{seconds:.0f} seconds", seconds=time.monotonic() - started))
    return result.to_dict()


def save_sheet(
    predictor: Predictor, data: Path, path: Path, *, split: str = "test", rows: int = SHEET_ROWS
) -> None:
    """Save a PNG of images, ground truth, predictions and errors, from the best to the worst image.

    The rows are spread evenly over the ranking by mean IoU.
    """
    import numpy as np

    from fullconv.data.io.images import read_image
    from fullconv.data.io.masks import read_mask
    from fullconv.data.layouts.dataset import load_dataset
    from fullconv.evaluation.metrics import Metrics, confusion_matrix
    from fullconv.visualization.contact_sheet import contact_sheet
    from fullconv.visualization.overlay import error_map

    dataset, labels = load_dataset(data), predictor.labels
    scored = []
    for pair in dataset.splits[split]:
        image, truth = read_image(pair.image), read_mask(pair.mask, dataset.labels)
        prediction = predictor.label_map(image)
        confusion = confusion_matrix(truth, prediction, len(labels))
        mean_iou = Metrics(labels.names, confusion).mean_iou
        scored.append((mean_iou, pair.name, image, truth, prediction))
    scored.sort(key=lambda entry: -entry[0])
    ranks = np.linspace(0, len(scored) - 1, min(rows, len(scored))).round().astype(int)

    images, captions = [], []
    for rank in sorted(set(ranks.tolist())):
        mean_iou, name, image, truth, prediction = scored[rank]
        errors = error_map(truth, prediction, labels.ignore_index, image=image)
        images.append([image, truth, prediction, errors])
        values = {"rank": rank + 1, "count": len(scored), "mean_iou": percent(mean_iou)}
        captions.append(
            msg("{name}: mean IoU {mean_iou}, number {rank} of {count}", name=name, **values)
        )
    titles = [msg("image"), msg("ground truth"), msg("prediction"), msg("errors (red)")]
    contact_sheet(images, titles, captions, labels=labels).save(path)
