"""Training: a folder of labelled images in, a run with its best model out.

The loop, mixed precision, several devices and early stopping are Lightning's; what is here is what
an FCN needs: the per-pixel loss straight from the scores, two learning rates, the confusion matrix
summed over processes, the model folder, and a resume that continues exactly where it stopped.

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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Unpack

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, translate
from fullconv.core.progress import stage
from fullconv.core.settings import Settings, TrainOptions, read_config, to_toml
from fullconv.core.text import shell_command, split_list
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.extra_heads import add_extra_heads, fingerprint
from fullconv.data.check.training_overlap import describe_training_overlap
from fullconv.data.check.value_meanings import value_table
from fullconv.data.download.download import resolve_dataset
from fullconv.data.layouts.dataset import Dataset
from fullconv.data.layouts.extra_folders import (
    with_channel_statistics,
    with_extra_inputs,
)
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
from fullconv.models.model import Model
from fullconv.models.run import Run
from fullconv.training.auto_settings import inverse_sqrt_frequency, resolve_settings
from fullconv.training.callbacks import (
    CHECKPOINT,
    Checkpoints,
    Reporter,
    TrainingGuards,
    readable_errors,
)
from fullconv.training.finalize import finish
from fullconv.training.image_logger import Watch
from fullconv.training.initial_model import build_initial_model, strides_of
from fullconv.training.lightning_module import Training
from fullconv.training.loggers import Teller, loggers_of, require_loggers
from fullconv.training.staged import train_stages

_RUN_FOLDER = "FULLCONV_RUN_FOLDER"  # tells the other processes of a run where it is


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
    """Trains an FCN on a data set: `train("data", backbone="resnet18", stride=8, epochs=50)`.

    Args:
        data: the folder, or the name of a published data set; see `fullconv.data.layouts.dataset` and
            `fullconv.data.download.download`. It is checked first.
        settings: all options at once; `options` change single ones (see `Settings`).
        out: the run's folder. Default: runs/<date>_<name>.
        resume: a run's folder to continue; data and options are read from it.
        quiet: print nothing.
        module: a backbone of your own, in place of the `backbone` option.

    Raises:
        FullconvError: faulty data, settings that cannot be, a loss that is not finite.
    """
    if resume is not None:
        folder = Path(resume)
        if options or settings or data or out:
            raise FullconvError(
                "a resumed run takes its data, folder and options from its own config.toml.",
                shell_command("fullconv", "train", "--resume", folder),
            )
        data, settings = _resumed(folder)
    elif data is None:
        raise FullconvError("no data set was named.", "fullconv train DATA")
    settings = Settings.from_dict({**(settings.to_dict() if settings else {}), **options})
    if resume is None and out is not None:
        _require_free(Path(out))
    require_loggers(settings)
    data = resolve_dataset(data, quiet=quiet)
    stage(msg("checking the dataset"))
    report, others = _checked(data, settings)
    settings, why = resolve_settings(settings, report, module, others)
    if not quiet and "LOCAL_RANK" not in os.environ:
        print(translate("\n".join([_summary(report, others), *why])), file=sys.stderr)
    if resume is None:
        folder = _new_folder(out, report.dataset, settings)
        _save_config(folder, data, settings)
    with remove_if_not_started(folder) if resume is None else nullcontext():
        if settings.staged:
            return _fit_stages(folder, data, [report, *others], settings, module, quiet)
        return _fit(folder, [report, *others], settings, module, resume is not None, quiet)


def _checked(data: Path, settings: Settings) -> tuple[CheckReport, list[CheckReport]]:
    """The data set's report, with all that goes in and comes out of a network, and those of further
    heads."""
    report = check(data)
    dataset, others = add_extra_heads(
        report, split_list(settings.heads), ignore_rules=settings.ignore_rules
    )
    dataset = with_extra_inputs(dataset, split_list(settings.extra_inputs))
    if dataset.inputs:
        dataset = with_channel_statistics(dataset)
    return replace(report, dataset=dataset, fingerprint=fingerprint(report, dataset)), others


def _resumed(folder: Path) -> tuple[str, Settings]:
    """The data and the options of a run that was stopped."""
    config = read_config(folder / "config.toml")
    data = config.get("data", {}).get("root")
    if data is None:
        raise FullconvError(
            f"{folder / 'config.toml'} does not say where the data set lies.",
            '[data]\nroot = "DATA"',
        )
    settings = Settings.from_dict(config.get("train", {}))
    if not settings.staged and not (folder / "checkpoint" / CHECKPOINT).is_file():
        raise FullconvError(
            f"{folder} has no checkpoint to resume from.",
            shell_command("fullconv", "train", "--config", folder / "config.toml"),
        )
    return data, settings


def _save_config(folder: Path, data: Path, settings: Settings) -> None:
    text = to_toml({"data": {"root": str(data.resolve())}, "train": settings.to_dict()})
    (folder / "config.toml").write_text(text, encoding="utf-8")


def _fit_stages(
    folder: Path,
    data: Path,
    reports: list[CheckReport],
    settings: Settings,
    module: Any,
    quiet: bool,
) -> Run:
    dataset = reports[0].dataset

    def fit(part: Path, step: Settings) -> None:
        if not quiet:
            print(translate(f"FCN-{step.stride}s, rate {step.lr:.3g}"), file=sys.stderr)
        if part != folder:
            (part / "checkpoint").mkdir(parents=True, exist_ok=True)
            _save_config(part, data, step)
        resuming = (part / "checkpoint" / CHECKPOINT).is_file()
        with remove_if_not_started(part) if part != folder else nullcontext():
            _fit(part, reports, step, module, resuming, quiet)

    stages = train_stages(folder, settings, strides_of(settings, module), fit)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return Run(folder, folder / "model", metrics, dataset.root, tuple(dataset.splits), stages)


def _summary(report: CheckReport, others: list[CheckReport]) -> str:
    """What is about to be trained on, and what the check found."""
    dataset = report.dataset
    counts = ", ".join(f"{len(pairs)} {split}" for split, pairs in dataset.splits.items())
    lines = [f"{dataset.root}: {counts}; {len(dataset.labels)} classes ({dataset.reason})"]
    lines += [f"note: {note}" for note in dataset.notes]
    lines += [value_table(report.meanings)] if report.meanings else []
    for (name, labels), other in zip(dataset.heads, others, strict=True):
        lines.append(f"head {name}: {len(labels)} classes, {', '.join(labels.names)}")
        lines += [value_table(other.meanings)] if other.meanings else []
    for one in dataset.inputs:
        numbers = (" ".join(f"{x:.4g}" for x in of) for of in (one.mean, one.std))
        lines.append(f"input {one.name}: mean {next(numbers)}, spread {next(numbers)}")
    lines += [f"warning: {finding.rule}: {finding.message}" for finding in report.warnings]
    lines += [f"ignored: {finding.rule}: {finding.message}" for finding in report.errors]
    return "\n".join(lines)


def _fit(
    folder: Path,
    reports: list[CheckReport],
    settings: Settings,
    module: Any,
    resuming: bool,
    quiet: bool,
) -> Run:
    report = reports[0]
    dataset, labels = report.dataset, report.dataset.labels
    silent = quiet or resuming or "LOCAL_RANK" in os.environ
    stage(msg("building the model"))
    model = build_initial_model(report, settings, module, quiet=silent)
    # Never the test split: the best model is chosen by this one.
    split = dataset.held_out
    protocol = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        images=len(dataset.splits[split]),
        classes=labels.names,
        pretrained_on=model.card.pretrained_on,
        ignored_pixels=report.ignored_pixels[split],
        trained_on=describe_training_overlap(model.training["trained_on"], report),
        sizes=report.sizes,  # of all splits; `finish` has those of this one
    )
    class_weights = None
    if settings.class_weights == "balanced":
        class_weights = [
            torch.tensor(inverse_sqrt_frequency(list(of.class_pixels["train"]))) for of in reports
        ]
    training = Training(
        model, settings, class_weights=class_weights, protocol=protocol, folder=folder
    )
    checkpoints = Checkpoints(folder)
    watch = Watch(folder, settings, reports, split, quiet=silent)
    callbacks = [Reporter(folder / "log.csv", quiet=quiet), TrainingGuards(labels.names), watch]
    loggers = loggers_of(settings, folder, quiet=quiet)
    if loggers:
        facts = {"data": dataset.root.name, "data_fingerprint": report.fingerprint}
        callbacks.append(Teller(settings, facts, watch))
    callbacks.append(checkpoints)  # behind those who note an epoch: it may stop there
    if settings.patience:
        callbacks.append(EarlyStopping("mean_iou", mode="max", patience=settings.patience))
    for name in ("lightning.pytorch", "lightning.fabric"):  # device lists and advertisements
        logging.getLogger(name).setLevel(logging.ERROR)
    trainer = _trainer(settings, callbacks, loggers, folder)
    loaders, batches = _loaders(dataset, settings, model, split, trainer)
    path = checkpoints.path if resuming else None
    if path:
        fast_forward(batches, path)
    device = trainer.strategy.root_device
    stage(msg("reading the first images"))
    with warnings.catch_warnings(), readable_errors(settings):
        _silence_warnings()
        trainer.fit(training, *loaders, ckpt_path=path, weights_only=False if path else None)
    metrics = dict(model.metrics)
    if trainer.is_global_zero:
        metrics = finish(folder, dataset, split, device, module, settings)
    return Run(folder, folder / "model", metrics, dataset.root, tuple(dataset.splits))


def _trainer(
    settings: Settings, callbacks: list[Any], loggers: list[Any], folder: Path
) -> pl.Trainer:
    return pl.Trainer(
        accelerator={"cuda": "gpu"}.get(settings.device, settings.device),
        devices=settings.devices,
        num_nodes=settings.nodes,
        precision=_precision(settings),  # type: ignore[arg-type]
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


def _precision(settings: Settings) -> str:
    names = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
    if settings.precision != "auto":
        return names[settings.precision]
    if settings.device != "cpu" and torch.cuda.is_available():
        return names["bfloat16" if computes_in_bfloat16(torch.device("cuda")) else "float16"]
    return names["bfloat16" if computes_in_bfloat16(torch.device("cpu")) else "float32"]


def _loaders(
    dataset: Dataset, settings: Settings, model: Model, split: str, trainer: pl.Trainer
) -> tuple[tuple[DataLoader[Any], DataLoader[Any]], ResumableBatchSampler]:
    assert settings.crop is not None
    assert settings.scale is not None
    transform = TrainTransform(
        settings.crop,
        scale=settings.scale,
        flip=settings.flip,
        color=settings.color_jitter,
        mean=model.card.mean,
        ignore_index=shared_ignore_index(model.tables),
        extra_mean=[x for one in model.extra_inputs for x in one.mean],
    )
    extra_labels = list(model.heads.values())
    part = {"rank": trainer.global_rank, "world_size": trainer.world_size}
    pairs = dataset.splits["train"]
    batches = ResumableBatchSampler(len(pairs), settings.batch_size, seed=settings.seed, **part)
    held_out = EvaluationSampler(len(dataset.splits[split]), **part)
    workers = settings.workers or 0
    # The processes of one machine share the budget; the reading processes of each share its cache.
    budget = round(settings.cache * 2**30 / settings.devices)
    held_out_first = 0 if split == "train" else len(pairs)
    cache = DecodedCache(held_out_first + len(dataset.splits[split]), budget)
    fork = "fork" if workers and sys.platform.startswith("linux") else None
    return (
        DataLoader(
            SegmentationDataset(
                pairs, model.labels, transform, extra_labels=extra_labels, cache=cache
            ),
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=fork,
            worker_init_fn=_leave_interrupts_to_the_parent,
        ),
        DataLoader(
            SegmentationDataset(
                dataset.splits[split],
                model.labels,
                extra_labels=extra_labels,
                cache=cache,
                cache_offset=held_out_first,
            ),
            batch_sampler=held_out,
            num_workers=min(workers, 1),
            persistent_workers=workers > 0,
            multiprocessing_context=fork,
            worker_init_fn=_leave_interrupts_to_the_parent,
        ),
    ), batches


def _leave_interrupts_to_the_parent(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fast_forward(batches: ResumableBatchSampler, checkpoint: Path) -> None:
    """Begins at the batch that came next: of the epoch that was interrupted, or of the next one.
    Worker processes ask for batches before Lightning says which epoch it is."""
    # Our own file, written by Lightning: plain numbers, tensors and containers.
    state = torch.load(checkpoint, map_location="cpu", weights_only=False)
    progress = state["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
    epoch, batch = state["epoch"], progress["processed"]
    if batch >= len(batches):
        epoch, batch = epoch + 1, 0
    batches.set_epoch(epoch)
    batches.first_batch[epoch] = batch


def _require_free(folder: Path) -> None:
    if (folder / "config.toml").exists() and "LOCAL_RANK" not in os.environ:
        raise FullconvError(
            f"{folder} already holds a run.",
            f"{shell_command('fullconv', 'train', '--resume', folder)}   # or --out NEW",
        )


@contextmanager
def remove_if_not_started(folder: Path) -> Iterator[None]:
    """A run that cannot begin leaves no folder, which would be in the way of the next try."""
    try:
        yield
    except BaseException:
        config, checkpoint = folder / "config.toml", folder / "checkpoint"
        if "LOCAL_RANK" not in os.environ and set(folder.rglob("*")) == {config, checkpoint}:
            config.unlink()
            checkpoint.rmdir()
            folder.rmdir()
        raise


def _new_folder(out: str | Path | None, dataset: Dataset, settings: Settings) -> Path:
    if out is None and _RUN_FOLDER in os.environ and "LOCAL_RANK" in os.environ:
        return Path(os.environ[_RUN_FOLDER])
    if out is None:
        name = f"{datetime.now():%Y-%m-%d_%H%M%S}_{dataset.root.resolve().name}_{settings.stride}s"
        folder = Path("runs") / name
    else:
        folder = Path(out)
    try:
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FullconvError(
            f"the run's folder {folder} could not be made: {error.strerror}.", "--out DIR"
        ) from error
    os.environ[_RUN_FOLDER] = str(folder.resolve())
    return folder


def _silence_warnings() -> None:
    """Advice that does not fit: the number of workers is decided, and there is no logger."""
    warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
    warnings.filterwarnings("ignore", category=FutureWarning, module="lightning")
