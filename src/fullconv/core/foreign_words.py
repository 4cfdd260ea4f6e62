"""Names that other tools use for the options and commands of Fullconv.

A table of meanings: a similar spelling often means something else (--lr is not --color). Words are
those of Ultralytics, PyTorch Lightning, Hugging Face, timm, mmsegmentation, smp and nnU-Net, and
earlier names of ours. Earlier names of training options are in `fullconv.core.settings.RENAMED`.
"""

from __future__ import annotations

from fullconv.core.i18n import Message, msg

# Our forms -> their options. The first form that a command has is used. `{value}` is the value that
# was typed; names in capitals are arguments without an option name.
_FORMS: dict[tuple[str, ...], str] = {
    # learning rate and optimization
    ("--lr {value}",): "learning-rate lr0 base-lr",
    ("--backbone-lr {value}",): "encoder-lr",
    ("--schedule onecycle",): "lrf cos-lr",
    ("--schedule {value}",): "lr-scheduler scheduler sched",
    ("--optimizer {value}",): "optim opt",
    ("--weight-decay {value}",): "wd",
    ("--epochs {value}",): "max-epochs num-epochs num-train-epochs epoch",
    ("--patience {value}",): "early-stopping early-stopping-patience",
    ("--label-smoothing {value}",): "smoothing",
    ("--grad-accumulation {value}",): "accumulate-grad-batches gradient-accumulation-steps",
    ("--batch-size {value}",): "bs per-device-train-batch-size",
    # model
    ("--backbone {value}",): "encoder encoder-name arch architecture",
    ("--stride {value}",): "output-stride",
    ("MODEL", "--init-from {value}"): "weights checkpoint ckpt ckpt-path load-from",
    ("--init-from {value}",): "finetune-from pretrained-weights",
    ("MODEL", "--backbone {value}"): "model",
    ("--freeze-backbone",): "freeze freeze-encoder",
    # data and augmentation
    ("DATA",): "data data-dir dataset data-path",
    ("IMAGES", "DATA"): "source input",
    ("IMAGES",): "images",
    ("--crop {value} {value}", "--tile {value}"): "imgsz img-size image-size input-size crop-size",
    ("--flip",): "fliplr hflip augment tta",
    # output
    ("--out runs/{value}", "--out {value}"): "name",
    ("--out {value}",): "project output output-dir save-dir work-dir",
    ("--out runs/{value}",): "run-name",
    ("--overwrite",): "exist-ok force again",
    ("--save mask,confidence",): "save-conf",
    ("--save polygons",): "save-txt",
    ("--format {value}",): "include to",
    ("--with-labels",): "argmax labels-inside",
    ("--preview {value}",): "sheet",
    ("--allow-different {value}",): "varying",
    ("--logger wandb",): "wandb",
    ("--logger tensorboard",): "tensorboard",
    ("--resume {value}",): "resume-from resume-from-checkpoint",
    ("--config {value}",): "cfg",
    # prediction
    ("--min-confidence {value}",): "conf unsure conf-thres confidence threshold",
    ("--tile {value}",): "tile-size",
    ("--frame-step {value}",): "vid-stride every",
    ("--allow-huge",): "huge",
    # hardware
    ("--device cuda",): "gpu cuda",
    ("--device cpu",): "cpu",
    ("--devices {value}", "--device cuda"): "gpus",
    ("--devices {value}",): "nproc-per-node",
    ("--nodes {value}",): "num-nodes",
    ("--workers {value}",): "num-workers dataloader-num-workers",
    ("--precision auto",): "amp",
    ("--precision float16",): "fp16 half",
    ("--precision bfloat16",): "bf16",
    ("--precision int8",): "int8",
    ("--quiet",): "silent",
    ("--lang {value}",): "language",
}
OPTIONS = {option: forms for forms, options in _FORMS.items() for option in options.split()}
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
# Our command -> theirs.
_NAMES = {
    "evaluate": "val validate eval test score",
    "train": "fit finetune",
    "predict": "infer inference segment detect label",
    "inspect": "info show summary",
    "check": "lint verify",
    "doctor": "checks env",
    "serve": "deploy",
    "push": "upload publish",
    "compare": "diff",
    "convert": "import",
    "--help": "help",
    "--version": "version",
}
COMMANDS = {theirs: ours for ours, names in _NAMES.items() for theirs in names.split()}


def our_setting(word: str) -> str:
    """Return the keyword of `fullconv.train` that means another tool's keyword, or "".

    >>> our_setting("learning_rate"), our_setting("imgsz"), our_setting("unheard_of")
    ('lr', 'crop', '')
    """
    for option in OPTIONS.get(word.replace("_", "-").lower(), ()):
        if option.startswith("--"):
            return option.split()[0].removeprefix("--").replace("-", "_")
    return ""
