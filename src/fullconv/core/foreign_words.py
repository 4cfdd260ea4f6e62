"""Names that other tools use for the options and commands of Fullconv.

A table of meanings: a similar spelling often means something else (--lr is not --color). Words are
those of Ultralytics, PyTorch Lightning, Hugging Face, timm, mmsegmentation, smp and nnU-Net, and
earlier names of ours. Earlier names of training options are in `fullconv.core.settings.RENAMED`.
"""

from __future__ import annotations

from fullconv.core.i18n import Message, msg

# Their option -> ours, the first that the command has. `{value}` is the value that was typed; names
# in capitals are arguments without an option name.
OPTIONS: dict[str, tuple[str, ...]] = {
    # learning rate and optimization
    "learning-rate": ("--lr {value}",),
    "lr0": ("--lr {value}",),
    "base-lr": ("--lr {value}",),
    "encoder-lr": ("--backbone-lr {value}",),
    "lrf": ("--schedule onecycle",),
    "cos-lr": ("--schedule onecycle",),
    "lr-scheduler": ("--schedule {value}",),
    "scheduler": ("--schedule {value}",),
    "sched": ("--schedule {value}",),
    "optim": ("--optimizer {value}",),
    "opt": ("--optimizer {value}",),
    "wd": ("--weight-decay {value}",),
    "max-epochs": ("--epochs {value}",),
    "num-epochs": ("--epochs {value}",),
    "num-train-epochs": ("--epochs {value}",),
    "epoch": ("--epochs {value}",),
    "early-stopping": ("--patience {value}",),
    "early-stopping-patience": ("--patience {value}",),
    "smoothing": ("--label-smoothing {value}",),
    "accumulate-grad-batches": ("--grad-accumulation {value}",),
    "gradient-accumulation-steps": ("--grad-accumulation {value}",),
    "bs": ("--batch-size {value}",),
    "per-device-train-batch-size": ("--batch-size {value}",),
    # model
    "encoder": ("--backbone {value}",),
    "encoder-name": ("--backbone {value}",),
    "arch": ("--backbone {value}",),
    "architecture": ("--backbone {value}",),
    "output-stride": ("--stride {value}",),
    "weights": ("MODEL", "--init-from {value}"),
    "checkpoint": ("MODEL", "--init-from {value}"),
    "ckpt": ("MODEL", "--init-from {value}"),
    "ckpt-path": ("MODEL", "--init-from {value}"),
    "finetune-from": ("--init-from {value}",),
    "load-from": ("MODEL", "--init-from {value}"),
    "model": ("MODEL", "--backbone {value}"),
    "freeze": ("--freeze-backbone",),
    "freeze-encoder": ("--freeze-backbone",),
    "pretrained-weights": ("--init-from {value}",),
    # data and augmentation
    "data": ("DATA",),
    "data-dir": ("DATA",),
    "dataset": ("DATA",),
    "data-path": ("DATA",),
    "source": ("IMAGES", "DATA"),
    "input": ("IMAGES", "DATA"),
    "images": ("IMAGES",),
    "imgsz": ("--crop {value} {value}", "--tile {value}"),
    "img-size": ("--crop {value} {value}", "--tile {value}"),
    "image-size": ("--crop {value} {value}", "--tile {value}"),
    "input-size": ("--crop {value} {value}", "--tile {value}"),
    "crop-size": ("--crop {value} {value}", "--tile {value}"),
    "fliplr": ("--flip",),
    "hflip": ("--flip",),
    "augment": ("--flip",),
    "tta": ("--flip",),
    # output
    "name": ("--out runs/{value}", "--out {value}"),
    "project": ("--out {value}",),
    "output": ("--out {value}",),
    "output-dir": ("--out {value}",),
    "save-dir": ("--out {value}",),
    "work-dir": ("--out {value}",),
    "run-name": ("--out runs/{value}",),
    "exist-ok": ("--overwrite",),
    "force": ("--overwrite",),
    "again": ("--overwrite",),
    "save-conf": ("--save mask,confidence",),
    "save-txt": ("--save polygons",),
    "include": ("--format {value}",),
    "to": ("--format {value}",),
    "argmax": ("--with-labels",),
    "labels-inside": ("--with-labels",),
    "sheet": ("--preview {value}",),
    "varying": ("--allow-different {value}",),
    "wandb": ("--logger wandb",),
    "tensorboard": ("--logger tensorboard",),
    "resume-from": ("--resume {value}",),
    "resume-from-checkpoint": ("--resume {value}",),
    "cfg": ("--config {value}",),
    # prediction
    "conf": ("--min-confidence {value}",),
    "unsure": ("--min-confidence {value}",),
    "conf-thres": ("--min-confidence {value}",),
    "confidence": ("--min-confidence {value}",),
    "threshold": ("--min-confidence {value}",),
    "tile-size": ("--tile {value}",),
    "vid-stride": ("--frame-step {value}",),
    "every": ("--frame-step {value}",),
    "huge": ("--allow-huge",),
    # hardware
    "gpu": ("--device cuda",),
    "cuda": ("--device cuda",),
    "cpu": ("--device cpu",),
    "gpus": ("--devices {value}", "--device cuda"),
    "nproc-per-node": ("--devices {value}",),
    "num-nodes": ("--nodes {value}",),
    "num-workers": ("--workers {value}",),
    "dataloader-num-workers": ("--workers {value}",),
    "amp": ("--precision auto",),
    "fp16": ("--precision float16",),
    "half": ("--precision float16",),
    "bf16": ("--precision bfloat16",),
    "int8": ("--precision int8",),
    "silent": ("--quiet",),
    "language": ("--lang {value}",),
}
# Options of others that Fullconv does not need, and why.
NEEDLESS: dict[str, Message] = {
    "num-classes": msg("the classes come from the dataset"),
    "nc": msg("the classes come from the dataset"),
    "task": msg("Fullconv does semantic segmentation only"),
    "verbose": msg("progress is shown unless you use --quiet"),
    "batch-size": msg("the batch size is chosen automatically here"),
    "workers": msg("the number of workers is chosen automatically here"),
    "iou": msg("semantic segmentation has no boxes to suppress"),
    "opset": msg("the ONNX opset is chosen automatically"),
    "dynamic": msg("exported models accept any image size"),
}
COMMANDS: dict[str, str] = {
    "val": "evaluate",
    "validate": "evaluate",
    "eval": "evaluate",
    "test": "evaluate",
    "score": "evaluate",
    "fit": "train",
    "finetune": "train",
    "infer": "predict",
    "inference": "predict",
    "segment": "predict",
    "detect": "predict",
    "label": "predict",
    "info": "inspect",
    "show": "inspect",
    "summary": "inspect",
    "lint": "check",
    "verify": "check",
    "checks": "doctor",
    "env": "doctor",
    "deploy": "serve",
    "upload": "push",
    "publish": "push",
    "diff": "compare",
    "import": "convert",
    "help": "--help",
    "version": "--version",
}


def our_setting(word: str) -> str:
    """Return the keyword of `fullconv.train` that means another tool's keyword, or "".

    >>> our_setting("learning_rate"), our_setting("imgsz"), our_setting("unheard_of")
    ('lr', 'crop', '')
    """
    for option in OPTIONS.get(word.replace("_", "-").lower(), ()):
        if option.startswith("--"):
            return option.split()[0].removeprefix("--").replace("-", "_")
    return ""
