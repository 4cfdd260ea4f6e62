"""Train a model: from a folder of annotated images to a run with its best model.

Lightning runs the loop, mixed precision, several devices and early stopping. Ours is what an FCN
needs: the loss per pixel straight from the scores, two learning rates, the confusion matrix summed
over processes, the model folder, and a resume that continues exactly where the run stopped.

    runs/<date>_<name>/  model/ checkpoint/ config.toml log.csv metrics.json counts_<split>.npz
                         report.html report.md images/
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from fullconv.core.config_file import read_config, to_toml
from fullconv.core.errors import FullconvError
from fullconv.core.files import atomic_write
from fullconv.core.i18n import join, msg, nmsg
from fullconv.core.progress import say, stage
from fullconv.core.settings import Settings, TrainOptions
from fullconv.core.text import shell_command, split_list
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.extra_heads import add_extra_heads, fingerprint
from fullconv.data.check.training_overlap import describe_training_overlap
from fullconv.data.check.value_meanings import value_table
from fullconv.data.download.download import resolve_dataset
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.extra_folders import with_channel_statistics, with_extra_inputs
from fullconv.data.loading.dataset import (
    EvaluationSampler,
    ResumableBatchSampler,
    SegmentationDataset,
    shared_ignore_index,
)
from fullconv.data.loading.decoded_cache import DecodedCache
from fullconv.data.loading.transforms import TrainTransform
from fullconv.evaluation.protocol import protocol_card
from fullconv.inference.runtime import computes_in_bfloat16
from fullconv.models.model import Model, load_model
from fullconv.models.run import Run, require_no_run
from fullconv.training.auto_settings import inverse_sqrt_frequency, resolve_settings
from fullconv.training.callbacks import (
    CHECKPOINT,
    Checkpoints,
    Reporter,
    TrainingGuards,
    readable_errors,
)
from fullconv.training.finalize import finish
from fullconv.training.image_logger import ImageLogger
from fullconv.training.initial_model import build_initial_model, pyramid_strides
from fullconv.training.lightning_module import TrainingModule
from fullconv.training.loggers import build_loggers, finish_loggers, require_loggers
from fullconv.training.staged import plan_stages, summarize_stages

_RUN_FOLDER = "FULLCONV_RUN_FOLDER"  # passes the folder of a run to its other processes


def train(
    data: str | Path | None = None,
    *,
    settings: Settings | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
    module: torch.nn.Module | None = None,
    **options: Unpack[TrainOptions],
) -> Run:
    """Check a dataset, and train an FCN on it: `train("data", backbone="resnet18", stride=8)`.

    Args:
        data: its folder, or the name of a published dataset, which is downloaded.
        settings: all options at once; `options` override individual ones. See `Settings`.
        out: the folder of the run. Default: runs/<date>_<name>.
        resume: the folder of a run to continue; it provides the data and all options.
        quiet: print nothing.
        module: your own backbone, instead of the option `backbone`.

    Raises:
        FullconvError: errors in the dataset, invalid options, or a loss that is not finite.
    """
    # Options: as given, or those of the run to resume.
    if resume is not None:
        if options or settings or data or out:
            raise FullconvError(
                msg("a resumed run takes its data, folder and options from its own config.toml."),
                shell_command("fullconv", "train", "--resume", resume),
            )
        data, settings = _read_run(Path(resume))
    elif data is None:
        raise FullconvError(msg("no dataset is given."), 'fullconv.train("DATA")')
    settings = Settings.from_dict({**(settings.to_dict() if settings else {}), **options})
    if resume is None and out is not None:
        require_no_run(Path(out))
    require_loggers(split_list(settings.logger))

    # Dataset: found or downloaded, and checked once.
    data = resolve_dataset(data, quiet=quiet)
    stage(msg("checking the dataset"))
    heads, extra_inputs = split_list(settings.heads), split_list(settings.extra_inputs)
    reports = _check_dataset(data, heads, extra_inputs, settings.ignore_rules)
    settings, reasons = resolve_settings(settings, reports, own_backbone=module is not None)
    if not quiet and "LOCAL_RANK" not in os.environ:
        say(join([_summarize_dataset(reports), *reasons]))

    # Run folder, with all options as resolved. Each stage of a staged run has its own below it.
    dataset = reports[0].dataset
    folder = Path(resume) if resume is not None else _create_folder(out, dataset, settings.stride)
    splits, resuming = tuple(dataset.splits), resume is not None
    with _remove_if_not_started(folder, keep=resuming):
        if not resuming:
            _save_config(folder, data, settings)
        if not settings.staged:
            metrics = _fit(folder, reports, settings, module, resuming=resuming, quiet=quiet)
            return Run(folder, folder / "model", metrics, dataset.root, splits)
        plan = plan_stages(folder, settings, pyramid_strides(settings, module))
        for part, stage_settings in plan:
            if (part / "metrics.json").is_file():
                continue  # this stage is complete
            if not quiet:
                stride, lr = stage_settings.stride, stage_settings.lr
                say(msg("FCN-{stride}s, learning rate {lr:.3g}", stride=stride, lr=lr))
            with _remove_if_not_started(part, keep=part == folder):
                if part != folder:
                    (part / "checkpoint").mkdir(parents=True, exist_ok=True)
                    _save_config(part, data, stage_settings)
                resuming = (part / "checkpoint" / CHECKPOINT).is_file()
                _fit(part, reports, stage_settings, module, resuming=resuming, quiet=quiet)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Run(folder, folder / "model", metrics, dataset.root, splits, summarize_stages(plan))


def _fit(
    folder: Path,
    reports: Sequence[CheckReport],
    settings: Settings,
    module: torch.nn.Module | None,
    *,
    resuming: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Train with resolved settings, complete the best model, and return its metrics."""
    report = reports[0]
    dataset, split = report.dataset, report.dataset.held_out  # never the test split
    silent = quiet or resuming or "LOCAL_RANK" in os.environ
    assert settings.crop is not None

    stage(msg("building the model"))
    model = build_initial_model(report, settings, module, quiet=silent)
    class_weights = None
    if settings.class_weights == "balanced":
        pixels = [head.class_pixels["train"] for head in reports]
        class_weights = [torch.tensor(inverse_sqrt_frequency(counts)) for counts in pixels]
    protocol = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        images=len(dataset.splits[split]),
        classes=dataset.labels.names,
        pretrained_on=model.card.pretrained_on,
        ignored_pixels=report.ignored_pixels[split],
        trained_on=describe_training_overlap(model.training["trained_on"], report),
        sizes=report.sizes,  # of all splits; the final evaluation has those of this one
    )
    training = TrainingModule(
        model, settings, class_weights=class_weights, protocol=protocol, folder=folder
    )

    # Callbacks: checkpoints come after those that record an epoch, because they may stop there.
    checkpoints = Checkpoints(folder)
    every = settings.log_images_every or 0
    callbacks: list[pl.Callback] = [
        Reporter(folder / "log.csv", quiet=quiet),
        TrainingGuards(dataset.labels.names),
        ImageLogger(folder / "images", every, reports, split, seed=settings.seed, quiet=silent),
        checkpoints,
    ]
    if settings.patience:
        callbacks.append(EarlyStopping("mean_iou", mode="max", patience=settings.patience))
    loggers = build_loggers(split_list(settings.logger), folder, quiet=quiet)
    try:
        for logger in loggers:
            facts = {"data": dataset.root.name, "data_fingerprint": report.fingerprint}
            logger.log_hyperparams({**settings.to_dict(), **facts})
        for name in ("lightning.pytorch", "lightning.fabric"):  # device lists and advertisements
            logging.getLogger(name).setLevel(logging.ERROR)
        trainer = pl.Trainer(
            accelerator={"cuda": "gpu"}.get(settings.device, settings.device),
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=lightning_precision(settings.precision, settings.device),  # type: ignore[arg-type]
            max_epochs=settings.epochs,
            accumulate_grad_batches=settings.grad_accumulation,
            callbacks=callbacks,
            default_root_dir=folder,
            logger=loggers or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=False,
        )

        share = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        loader, validation_loader = _loaders(model, dataset, settings, share)
        checkpoints.batches = loader.batch_sampler  # type: ignore[assignment]
        device = trainer.strategy.root_device
        stage(msg("reading the first images"))
        checkpoint: dict[str, Any] = {}
        if resuming:  # our own file, written by Lightning
            checkpoint = {"ckpt_path": checkpoints.path, "weights_only": False}
        with warnings.catch_warnings(), readable_errors(settings.batch_size, settings.crop):
            # Advice that does not apply: the number of workers is decided, a logger is optional.
            warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
            warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
            trainer.fit(training, loader, validation_loader, **checkpoint)
    finally:
        finish_loggers(loggers)

    # The network has the best weights if the last epoch was the best one.
    if not trainer.is_global_zero:
        return dict(model.metrics)
    if not training.last_is_best:
        model = load_model(folder / "model", backbone=module)
    return finish(model, folder, reports, split, device)


def _loaders(
    model: Model, dataset: Dataset, settings: Settings, share: dict[str, int]
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Return the loaders of the training split and of the held-out split, with resolved settings.

    The processes of one machine share the memory for decoded images, and the worker processes of
    each share its cache. The training images come first in it.
    """
    assert settings.crop is not None
    assert settings.scale is not None
    transform = TrainTransform(
        settings.crop,
        scale=settings.scale,
        flip=settings.flip,
        color=settings.color_jitter,
        mean=model.card.mean,
        ignore_index=shared_ignore_index(model.tables),
        extra_mean=[value for extra in model.extra_inputs for value in extra.mean],
    )
    pairs, validation_pairs = dataset.splits["train"], dataset.splits[dataset.held_out]
    first = 0 if dataset.held_out == "train" else len(pairs)
    budget = round(settings.cache * 2**30 / settings.devices)
    cache = DecodedCache(first + len(validation_pairs), budget)
    files: dict[str, Any] = {"extra_labels": list(model.heads.values()), "cache": cache}
    samples = SegmentationDataset(pairs, model.labels, transform, **files)
    validation = SegmentationDataset(validation_pairs, model.labels, cache_offset=first, **files)

    batch_size, seed = settings.batch_size, settings.seed
    batches = ResumableBatchSampler(len(pairs), batch_size, seed=seed, **share)
    validation_batches = EvaluationSampler(len(validation_pairs), **share)
    workers = settings.workers or 0
    common: dict[str, Any] = {
        "persistent_workers": workers > 0,
        "multiprocessing_context": "fork" if workers and sys.platform == "linux" else None,
        "worker_init_fn": _ignore_interrupts,
    }
    loader = DataLoader(samples, batch_sampler=batches, num_workers=workers, **common)
    common["num_workers"] = min(workers, 1)
    return loader, DataLoader(validation, batch_sampler=validation_batches, **common)


def _check_dataset(
    data: Path, heads: Sequence[str], extra_inputs: Sequence[str], ignore_rules: str
) -> list[CheckReport]:
    """Return the reports of the dataset, with heads and extra inputs, and of these heads."""
    report = check(data)
    if not report.dataset.splits.get("train"):
        splits = ", ".join(split for split, pairs in report.dataset.splits.items() if pairs)
        message = msg(
            "{root} has no images to train on: all are in {splits}.",
            root=report.dataset.root,
            splits=splits,
        )
        raise FullconvError(message, shell_command("fullconv", "check", report.dataset.root))
    dataset, head_reports = add_extra_heads(report, heads, ignore_rules=ignore_rules)
    dataset = with_extra_inputs(dataset, extra_inputs)
    if dataset.inputs:
        dataset = with_channel_statistics(dataset)
    report = replace(report, dataset=dataset, fingerprint=fingerprint(report, dataset))
    return [report, *head_reports]


def _summarize_dataset(reports: Sequence[CheckReport]) -> str:
    report, dataset = reports[0], reports[0].dataset
    splits = ", ".join(f"{len(pairs)} {split}" for split, pairs in dataset.splits.items())
    values: dict[str, Any] = {"root": dataset.root, "splits": splits, "reason": dataset.reason}
    lines: list[str] = [
        nmsg(
            "{root}: {splits}; {count} class ({reason})",
            "{root}: {splits}; {count} classes ({reason})",
            count=len(dataset.labels),
            **values,
        )
    ]
    lines += [msg("note: {note}", note=note) for note in dataset.notes]
    lines += [value_table(report.meanings)] if report.meanings else []
    for (name, labels), head in zip(dataset.heads, reports[1:], strict=True):
        values = {"name": name, "count": len(labels), "classes": ", ".join(labels.names)}
        lines.append(msg("head {name}: {count} classes, {classes}", **values))
        lines += [value_table(head.meanings)] if head.meanings else []
    for extra in dataset.inputs:
        mean, std = (" ".join(f"{x:.4g}" for x in part) for part in (extra.mean, extra.std))
        values = {"name": extra.name, "mean": mean, "std": std}
        lines.append(msg("input {name}: mean {mean}, standard deviation {std}", **values))
    for finding in report.warnings:
        lines.append(msg("warning: {rule}: {message}", rule=finding.rule, message=finding.message))
    for finding in report.errors:
        lines.append(msg("ignored: {rule}: {message}", rule=finding.rule, message=finding.message))
    return join(lines)


def _read_run(folder: Path) -> tuple[str, Settings]:
    """Return the dataset and the options of a run that was stopped."""
    path = folder / "config.toml"
    config = read_config(path)
    data = config.get("data", {}).get("root")
    if data is None:
        message = msg("{path} does not name the dataset.", path=path)
        raise FullconvError(message, '[data]\nroot = "DATA"')
    settings = Settings.from_dict(config.get("train", {}))
    if not settings.staged and not (folder / "checkpoint" / CHECKPOINT).is_file():
        message = msg("{folder} has no checkpoint to resume from.", folder=folder)
        raise FullconvError(message, shell_command("fullconv", "train", "--config", path))
    return data, settings


def _save_config(folder: Path, data: Path, settings: Settings) -> None:
    config = {"data": {"root": str(data.resolve())}, "train": settings.to_dict()}
    atomic_write(folder / "config.toml", to_toml(config))


def _create_folder(out: str | Path | None, dataset: Dataset, stride: int) -> Path:
    if out is None and _RUN_FOLDER in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[_RUN_FOLDER])
    name = f"{datetime.now():%Y-%m-%d_%H%M%S}_{dataset.root.resolve().name}_{stride}s"
    folder = Path(out) if out is not None else Path("runs") / name
    try:
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        values = {"folder": folder, "reason": error.strerror or error}
        message = msg("the run folder {folder} could not be created: {reason}.", **values)
        raise FullconvError(message, "--out DIR") from error
    os.environ[_RUN_FOLDER] = str(folder.resolve())
    return folder


@contextmanager
def _remove_if_not_started(folder: Path, *, keep: bool) -> Iterator[None]:
    """Remove the folder of a run that fails before its first result: its name can be used again."""
    try:
        yield
    except BaseException:
        config, checkpoint = folder / "config.toml", folder / "checkpoint"
        files = set(folder.rglob("*"))
        if not keep and "LOCAL_RANK" not in os.environ and files == {config, checkpoint}:
            config.unlink()
            checkpoint.rmdir()
            folder.rmdir()
        raise


def lightning_precision(precision: str, device: str) -> str:
    """Return Lightning's name of a precision; "auto" is half precision if the device has it."""
    names = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    if precision != "auto":
        return names[precision]
    if device != "cpu" and torch.cuda.is_available():
        return names["bfloat16" if computes_in_bfloat16(torch.device("cuda")) else "float16"]
    return names["bfloat16" if computes_in_bfloat16(torch.device("cpu")) else "float32"]


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
