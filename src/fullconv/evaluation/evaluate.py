"""Evaluate a model on a split: the metrics of the FCN paper, at the images' original size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_array

from fullconv.core.concurrency import BackgroundWorker, prefetch
from fullconv.core.errors import FullconvError
from fullconv.core.i18n import Message, join, msg, nmsg
from fullconv.core.labels import IGNORE, Labels
from fullconv.core.text import shell_command, split_list, truncated_list
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.extra_heads import add_extra_heads, fingerprint
from fullconv.data.check.training_overlap import describe_training_overlap
from fullconv.data.io.images import read_image
from fullconv.data.io.mask_values import Value, map_table
from fullconv.data.io.masks import read_mask
from fullconv.data.layouts.dataset import Dataset, load_dataset
from fullconv.data.layouts.extra_folders import with_extra_inputs, without_extras
from fullconv.data.layouts.file_names import Pair
from fullconv.data.layouts.paths import where_to_paste
from fullconv.data.layouts.settings_file import read_settings
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.metrics import Metrics, confusion_matrix, heads_dict
from fullconv.evaluation.per_image import (
    ImageConfusions,
    SplitConfusions,
    content_fingerprint,
    sparse_row,
)
from fullconv.evaluation.protocol import protocol_card
from fullconv.inference.options import PredictOptions
from fullconv.inference.predictor import Predictor, load
from fullconv.inference.segmenter import Segmenter

Alteration: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Evaluation:
    """The result on one split.

    Args:
        metrics: from the confusion matrix of the whole split.
        protocol: what the numbers mean; see `fullconv.evaluation.protocol.protocol_card`.
        heads: metrics of the additional heads whose masks the dataset has, by name.
        left_out: heads whose masks the dataset lacks.
        qualities: error analysis of each head, the first head first; empty if not requested.
        context: what was evaluated, for `fullconv.save_report`.
        counts: the confusion matrix of every image, for all heads.
    """

    metrics: Metrics
    protocol: dict[str, Any]
    heads: dict[str, Metrics] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    qualities: tuple[Quality, ...] = ()
    context: EvaluationContext | None = field(default=None, repr=False)
    counts: SplitConfusions | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return metrics and error analysis for JSON, those of additional heads under "heads", and
        the protocol card under "protocol"."""
        heads = heads_dict(self.heads)
        first, *others = [quality.to_dict() for quality in self.qualities] or [{}]
        for name, quality in zip(self.heads, others, strict=bool(self.qualities)):
            heads["heads"][name] |= quality
        return {**self.metrics.to_dict(), **first, **heads, "protocol": self.protocol}


@dataclass(frozen=True)
class Head:
    """A head of the model, by its number there, for which the dataset has masks.

    `data_labels` is the class table of the masks, `names` are the model's classes, and `lookup`
    leads from the ids of the masks to those of the model, see `class_mapping`.
    """

    name: str
    number: int
    data_labels: Labels
    names: tuple[str, ...]
    lookup: np.ndarray


@dataclass(frozen=True)
class EvaluationContext:
    """The model with its options, the checked data and the heads of an evaluation.

    The dataset has the masks of all heads and the extra inputs. `seconds` is the duration of the
    pass over the images.
    """

    model: Segmenter
    report: CheckReport
    split: str
    heads: tuple[Head, ...]
    seconds: float = 0.0

    @property
    def dataset(self) -> Dataset:
        """The dataset that was evaluated."""
        return self.report.dataset

    def ground_truth(self, pair: Pair) -> list[np.ndarray]:
        """Read the masks of each head: (H, W) ids of the model; ignored pixels are out of range."""
        paths = zip(self.heads, (pair.mask, *pair.masks), strict=True)
        return [head.lookup[read_mask(path, head.data_labels)] for head, path in paths]


def evaluate(
    model: Segmenter | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "test",
    heads: str = "",
    extra_inputs: str = "",
    ignore_rules: str = "",
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    quality: bool = True,
    checked: Sequence[CheckReport] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image of a split and compare it with its mask, at the original size.

    Args:
        model: a model or its path.
        data: a dataset or its folder. Classes are matched by name.
        split: "train", "val" or "test".
        heads: comma-separated mask folders of additional heads. Default: the heads' names, if the
            dataset has these folders; a head without a folder is not evaluated.
        extra_inputs: comma-separated folders of extra inputs. Default: the inputs' names.
        ignore_rules: see `fullconv.data.check.ignore_rules.apply_ignore_rules`.
        flip, scales: test-time augmentation, see `fullconv.inference.options.PredictOptions`.
            Default: the model's options.
        quality: run the error analysis, see `fullconv.evaluation.error_analysis`.
        checked: reports of the dataset and of the masks of each additional head, if they were
            checked already; then `data`, `heads`, `extra_inputs` and `ignore_rules` are not used.
        progress: called with (images done, images).

    Raises:
        FullconvError: no such split, classes that do not match, or faulty data.
    """
    (result,) = evaluate_altered(
        model,
        data,
        [None],
        split=split,
        folders=(split_list(heads), split_list(extra_inputs)),
        ignore_rules=ignore_rules,
        options=PredictOptions(flip=flip, scales=tuple(scales)),
        quality=quality,
        checked=checked,
        progress=progress,
    )
    return result


def evaluate_altered(
    model: Segmenter | str | Path,
    data: Dataset | str | Path,
    alterations: Sequence[Alteration | None],
    *,
    split: str,
    folders: tuple[Sequence[str], Sequence[str]] = ((), ()),
    ignore_rules: str = "",
    options: PredictOptions | None = None,
    quality: bool = False,
    checked: Sequence[CheckReport] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Evaluation]:
    """Evaluate once for each alteration of the images; see `evaluate`.

    An alteration is a function from an image (H, W, 3) uint8 and its ground truth (H, W) ids of the
    model to the image that the model sees; None leaves images as they are. `folders` are those of
    additional heads and of extra inputs, if they differ from their names.
    """
    predictor = _as_float32(model, options)
    heads, report = _match_heads(predictor, data, split, folders, ignore_rules, checked)
    context = EvaluationContext(predictor, report, split, tuple(heads))
    pairs = report.dataset.pairs_of(split)
    rows: list[list[list[csr_array]]] = [[[] for _ in heads] for _ in alterations]
    qualities = [[Quality(head.names) for head in heads if quality] for _ in alterations]
    done, ignored, sizes = 0, 0, set()
    started = time.monotonic()

    def read(pair: Pair) -> tuple[np.ndarray, list[np.ndarray]]:
        return read_image(pair.image), context.ground_truth(pair)

    with BackgroundWorker() as background:
        for pair, (image, truths) in prefetch(read, pairs):
            sizes.add(image.shape[:2])
            ignored += int((truths[0] >= len(predictor.labels)).sum())
            for head_rows, head_qualities, alter in zip(rows, qualities, alterations, strict=True):
                altered = alter(image, truths[0]) if alter else image
                predictions = (
                    predictor.predict_with_confidence(altered, pair.inputs)
                    if quality
                    else [(ids, None) for ids in predictor.label_maps(altered, pair.inputs)]
                )
                for k, (head, truth) in enumerate(zip(heads, truths, strict=True)):
                    ids, confidence = predictions[head.number]
                    confusion = confusion_matrix(truth, ids, len(head.names))
                    head_rows[k].append(sparse_row(confusion))
                    if quality:  # counted while the network goes on
                        background(head_qualities[k].add, truth, ids, confusion, confidence)
                done += 1
                if progress:
                    progress(done, len(pairs) * len(alterations))
        background.wait()

    context = replace(context, seconds=time.monotonic() - started)
    card = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        images=len(pairs),
        classes=predictor.labels.names,
        pretrained_on=predictor.info.pretrained_on,
        ignored_pixels=ignored,
        trained_on=describe_training_overlap(predictor.info.training.get("trained_on", ()), report),
        sizes=sizes,
        augmentation=predictor.options.describe(),
    )
    return [_evaluation(context, *counts, card) for counts in zip(rows, qualities, strict=True)]


def _evaluation(
    context: EvaluationContext,
    rows: Sequence[Sequence[csr_array]],
    qualities: Sequence[Quality],
    card: dict[str, Any],
) -> Evaluation:
    """Join the counts of all images, for each head."""
    confusions = {
        head.name: ImageConfusions.from_rows(head.names, head_rows)
        for head, head_rows in zip(context.heads, rows, strict=True)
    }
    metrics = {name: Metrics(c.classes, c.confusion()) for name, c in confusions.items()}
    pairs, contents = context.dataset.pairs_of(context.split), context.report.contents
    counts = SplitConfusions(
        tuple(pair.name for pair in pairs),
        tuple(content_fingerprint(contents[context.split, pair.name]) for pair in pairs),
        confusions,
        card,
        str(context.dataset.root.resolve()),
    )
    first = metrics.pop(context.heads[0].name)
    left_out = tuple(name for name in context.model.heads if name not in confusions)
    return Evaluation(first, card, metrics, left_out, tuple(qualities), context, counts)


def _as_float32(model: Segmenter | str | Path, options: PredictOptions | None) -> Segmenter:
    """Return the model in float32, so that its metrics do not depend on the machine. A model that
    was passed as an object stays unchanged."""
    predictor = copy(model) if isinstance(model, Segmenter) else load(model, precision="float32")
    options = options if options and options.averaged else predictor.options
    if isinstance(predictor, Predictor) and predictor.runtime.precision != "float32":
        network, device, tile = predictor.model, predictor.device, predictor.tile
        predictor = Predictor(network, device=device, precision="float32", tile=tile)
    predictor.set_options(options)
    return predictor


def _match_heads(
    model: Segmenter,
    data: Dataset | str | Path,
    split: str,
    folders: tuple[Sequence[str], Sequence[str]],
    ignore_rules: str,
    checked: Sequence[CheckReport],
) -> tuple[list[Head], CheckReport]:
    """Return the heads that the dataset has masks for, and the dataset's report with these."""
    names = [model.info.head, *model.heads]
    if checked:
        matched, reports, report = names, list(checked), checked[0]
    else:
        dataset = data if isinstance(data, Dataset) else load_dataset(data)
        dataset.pairs_of(split)
        report = check(without_extras(dataset)).for_evaluation()
        head_folders, input_folders = folders
        inputs = [extra.name for extra in model.extra_inputs]
        _require_folder_each(head_folders, names[1:], "--heads")
        _require_folder_each(input_folders, inputs, "--extra-inputs")
        by_head = dict(zip(names[1:], head_folders or names[1:], strict=True))
        if not head_folders:
            by_head = {name: name for name in by_head if (dataset.root / name).is_dir()}
        dataset, others = add_extra_heads(report, [*by_head.values()], ignore_rules=ignore_rules)
        dataset = with_extra_inputs(dataset, input_folders or inputs)
        matched, reports = [model.info.head, *by_head], [report, *others]
        report = replace(report, dataset=dataset, fingerprint=fingerprint(report, dataset))

    heads = []
    for name, head_report, labels in zip(matched, reports, report.dataset.tables, strict=True):
        number = names.index(name)
        table = model.tables[number]
        lookup = class_mapping(head_report, table, split)
        heads.append(Head(name, number, labels, table.names, lookup))
    return heads, report


def _require_folder_each(folders: Sequence[str], names: Sequence[str], option: str) -> None:
    if not folders or len(folders) == len(names):
        return
    problem = nmsg(
        "{option} names {count} folder, but the model needs {needed} ({names}).",
        "{option} names {count} folders, but the model needs {needed} ({names}).",
        len(folders),
        option=option,
        needed=len(names),
        names=truncated_list(names) if names else "-",
    )
    if names:
        raise FullconvError(problem, shell_command(option, ",".join(names)))
    raise FullconvError(problem, msg("run the command again without {option}", option=option))


def class_mapping(report: CheckReport, model: Labels, split: str) -> np.ndarray:
    """Return the model's class id for each class id of a dataset, matched by name; int32.

    Ids without a class of the model, and the ignore index, map to a number out of range.

    Raises:
        FullconvError: the split has pixels of a class that the model does not know.
    """
    data, pixels = report.dataset.labels, report.class_pixels[split]
    present = [name for name, count in zip(data.names, pixels, strict=True) if count]
    unknown = [name for name in present if name not in model.names]
    if unknown:
        root = report.dataset.root
        hint = _table_with_model_classes(report, model)
        if unknown == present:
            command = shell_command("fullconv", "train", root)
            other = msg("{command}   # to train a model with these classes; or", command=command)
            hint = join([other, hint])
        problem = msg(
            "the model does not know {unknown}, which {split} of {root} shows; it has {names}.",
            unknown=truncated_list(unknown),
            split=split,
            root=root,
            names=truncated_list(model.names),
        )
        raise FullconvError(problem, hint)
    size = max(data.ignore_index, len(data)) + 1
    lookup = np.full(size, np.iinfo(np.int32).max, dtype=np.int32)
    for k, name in enumerate(data.names):
        if name in model.names:
            lookup[k] = model.names.index(name)
    return lookup


def _table_with_model_classes(report: CheckReport, model: Labels) -> Message:
    """Return a complete dataset.toml whose classes are the model's."""
    dataset = report.dataset
    settings = read_settings(dataset.root)
    values: dict[Value, str] = {meaning.value: meaning.name for meaning in report.meanings}
    if not values:  # every value is the id of its class
        counts = zip(*report.class_pixels.values(), strict=True)
        values = {k: dataset.labels.names[k] for k, row in enumerate(counts) if any(row)}
    values = {value: name for value, name in values.items() if name}
    table = {value: name if name in model.names else IGNORE for value, name in values.items()}
    head, *lines = map_table(table).splitlines()
    lines = [
        line if name in (*model.names, IGNORE) else msg("{line}   # {name}", line=line, name=name)
        for line, name in zip(lines, values.values(), strict=True)
    ]
    paste = msg(
        "{where_to_paste} (replace ignore by a class of the model that means the same):",
        where_to_paste=where_to_paste(dataset.root, whole=True),
    )
    keys = [key for key in ("images", "masks", "layout") if key in settings]
    options = [f"{key} = {json.dumps(settings[key])}" for key in keys]
    classes = f"classes = {json.dumps(list(model.names), ensure_ascii=False)}"
    return join([paste, *options, classes, head, *lines])
