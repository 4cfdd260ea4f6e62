"""Evaluate a model on a split: the paper's four numbers, at the images' original size."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from fullconv.core.concurrency import BackgroundWorker, prefetch
from fullconv.core.errors import FullconvError
from fullconv.core.labels import IGNORE, Labels
from fullconv.core.text import plural, shell_command, split_list, truncated_list
from fullconv.data.check.check import CheckReport, check
from fullconv.data.check.extra_heads import add_extra_heads, fingerprint
from fullconv.data.check.training_overlap import describe_training_overlap
from fullconv.data.io.images import read_image
from fullconv.data.io.masks import Value, map_table, read_mask
from fullconv.data.layouts.class_table import read_settings
from fullconv.data.layouts.dataset import Dataset, load_dataset
from fullconv.data.layouts.extra_folders import with_extra_inputs, without_extras
from fullconv.data.layouts.pairing import Pair
from fullconv.data.layouts.paths import where_to_paste
from fullconv.evaluation.error_analysis import Quality
from fullconv.evaluation.metrics import Metrics, confusion_matrix, heads_dict
from fullconv.evaluation.per_image import (
    ImageConfusions,
    Sparse,
    SplitConfusions,
    content_of,
    sparse,
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
        heads: metrics of the further heads whose masks the data set has, by name.
        left_out: heads whose masks it has not.
        qualities: near edges, by object size and of the confidence: of the first head, then of the
            further ones; empty where it was not asked for.
        scored: what was evaluated, for `fullconv.save_report`.
        counts: the confusion matrix of every image, of all heads.
    """

    metrics: Metrics
    protocol: dict[str, Any]
    heads: dict[str, Metrics] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    qualities: tuple[Quality, ...] = ()
    scored: EvaluationContext | None = field(default=None, repr=False)
    counts: SplitConfusions | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the metrics and qualities, those of further heads under "heads", and the card
        under "protocol"."""
        further = heads_dict(self.heads)
        first, *others = [quality.to_dict() for quality in self.qualities] or [{}]
        for name, quality in zip(self.heads, others, strict=bool(self.qualities)):
            further["heads"][name] |= quality
        return {**self.metrics.to_dict(), **first, **further, "protocol": self.protocol}


@dataclass(frozen=True)
class EvaluationContext:
    """What was evaluated.

    Args:
        model: as it was used.
        report: of the check of the data set, with the masks of the heads and the model's inputs.
        split: of its pairs.
        heads: that were scored.
        seconds: that the pass over the images took.
    """

    model: Segmenter
    report: CheckReport
    split: str
    heads: tuple[Head, ...]
    seconds: float

    @property
    def dataset(self) -> Dataset:
        """That was evaluated."""
        return self.report.dataset

    def truths(self, pair: Pair) -> list[np.ndarray]:
        """(H, W) ids of the model, of each head; ignored pixels are out of range."""
        return _truths(self.heads, pair)


def evaluate(
    model: Segmenter | str | Path,
    data: Dataset | str | Path,
    *,
    split: str = "test",
    heads: str = "",
    inputs: str = "",
    ignore_rules: str = "",
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    quality: bool = True,
    checked: Sequence[CheckReport] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predicts every image of a split and compares it with its mask, at the original size.

    Args:
        model: a model or its path.
        data: a data set or its folder. Classes are matched by name.
        split: "train", "val" or "test".
        heads: of a model with several, the folders of the further masks, with commas. Default: of
            the heads' names, where the data set has them; others are not scored.
        inputs: of a model with further inputs, their folders. Default: of the inputs' names.
        ignore_rules: see `fullconv.data.check.ignore_rules.apply_ignore_rules`.
        flip, scales: test-time augmentation, see `fullconv.inference.options.PredictOptions`. By themselves those
            of the model, which has none unless it was told to.
        quality: also count what `fullconv.evaluation.error_analysis` describes.
        checked: reports of the dataset and of the additional heads' masks, if they were checked
            already: `data`, `heads`, `inputs` and `ignore_rules` are not read again.
        progress: called with (images done, images).

    Raises:
        FullconvError: no such split, classes that do not match, or faulty data.
    """
    (result,) = evaluate_altered(
        model,
        data,
        [None],
        split=split,
        folders=(split_list(heads), split_list(inputs)),
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
    """As `evaluate`, once for each way in which the images are altered before the model sees
    them; None leaves them as they are.

    Args:
        alterations: make of an image (H, W, 3) uint8 and its true ids (H, W) of the model the
            image that is shown; see `fullconv.evaluation.masking_probe`.
        folders: of further heads and inputs, where they are not called like these.
        options: of which `flip` and `scales` count here. Without either, those of the model.
        quality, checked: see `evaluate`.
        progress: called with (predictions done, predictions).
    """
    predictor = _in_single(model, options)
    if checked:
        every = zip(("", *predictor.heads), predictor.tables, checked, strict=True)
        report, heads = checked[0], []
        for number, (name, labels, of) in enumerate(every):
            lookup = class_mapping(of, labels, split)
            own = report.dataset.tables[number]
            heads.append(Head(name or predictor.head, number, own, labels.names, lookup))
    else:
        heads, report = _heads(predictor, data, split, folders, ignore_rules)
    pairs = report.dataset.pairs_of(split)
    found_in: list[list[list[Sparse]]] = [[[] for _ in heads] for _ in alterations]
    qualities = [[Quality(head.names) for head in heads if quality] for _ in alterations]
    behind, done, ignored = BackgroundWorker(), 0, 0
    sizes = set()
    started = time.monotonic()
    for pair, image, truths in _read_ahead(heads, pairs):
        sizes.add(image.shape[:2])
        ignored += int((truths[0] >= len(predictor.labels)).sum())
        for rows, kinds, alter in zip(found_in, qualities, alterations, strict=True):
            shown = alter(image, truths[0]) if alter else image
            found = _found(predictor, shown, pair, quality)
            for k, (head, truth) in enumerate(zip(heads, truths, strict=True)):
                ids, confidence = found[head.number]
                confusion = confusion_matrix(truth, ids, len(head.names))
                rows[k].append(sparse(confusion))
                if quality:
                    behind(kinds[k].add, truth, ids, confusion, confidence)
            done += 1
            if progress:
                progress(done, len(pairs) * len(alterations))
    behind.wait()
    scored = EvaluationContext(predictor, report, split, tuple(heads), time.monotonic() - started)
    card = protocol_card(
        fingerprint=report.fingerprint,
        split=split,
        images=len(pairs),
        classes=predictor.labels.names,
        pretrained_on=predictor.pretrained_on,
        ignored_pixels=ignored,
        trained_on=describe_training_overlap(predictor.training.get("trained_on", ()), report),
        sizes=sizes,
        augmentation=predictor.options.describe(),
    )
    return [_evaluation(scored, *of, card) for of in zip(found_in, qualities, strict=True)]


def _evaluation(
    scored: EvaluationContext,
    found: Sequence[Sequence[Sparse]],
    kinds: Sequence[Quality],
    card: dict[str, Any],
) -> Evaluation:
    """Of the matrices of every image, and of what else was counted, of each head."""
    heads, report = scored.heads, scored.report
    names = [head.name for head in heads]
    of_heads = [
        ImageConfusions.of(head.names, rows) for head, rows in zip(heads, found, strict=True)
    ]
    first, *further = (Metrics(of.classes, of.confusion()) for of in of_heads)
    pairs = report.dataset.pairs_of(scored.split)
    counts = SplitConfusions(
        tuple(pair.name for pair in pairs),
        tuple(content_of(report.contents[scored.split, pair.name]) for pair in pairs),
        dict(zip(names, of_heads, strict=True)),
        card,
        str(report.dataset.root.resolve()),
    )
    named = dict(zip(names[1:], further, strict=True))
    left_out = tuple(set(scored.model.heads) - set(names))
    return Evaluation(first, card, named, left_out, tuple(kinds), scored, counts)


def _read_ahead(
    heads: Sequence[Head], pairs: Sequence[Pair]
) -> Iterator[tuple[Pair, np.ndarray, list[np.ndarray]]]:
    """Each pair with its image and its truths; the next one is read meanwhile."""
    for pair, (image, truths) in prefetch(
        lambda pair: (read_image(pair.image), _truths(heads, pair)), pairs
    ):
        yield pair, image, truths


def _truths(heads: Sequence[Head], pair: Pair) -> list[np.ndarray]:
    paths = zip(heads, (pair.mask, *pair.masks), strict=True)
    return [head.to_model[read_mask(path, head.of_data)] for head, path in paths]


def _found(
    model: Segmenter, image: np.ndarray, pair: Pair, rated: bool
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """(H, W) ids of every head of the model and, where it is asked for, their confidence."""
    if rated:
        return model.predict_with_confidence(image, pair.inputs)
    return [(ids, None) for ids in model.label_maps(image, pair.inputs)]


def _in_single(model: Segmenter | str | Path, options: PredictOptions | None) -> Segmenter:
    """One number for a model, whatever runs it; a model that was handed over stays as it is."""
    given = copy(model) if isinstance(model, Segmenter) else load(model, precision="float32")
    predictor = given
    if isinstance(given, Predictor) and given.engine.precision != "float32":
        predictor = Predictor(given.model, device=given.device, precision="float32")
    predictor.set_options(options if options and options.averaged else given.options)
    return predictor


@dataclass(frozen=True)
class Head:
    """One that the data set has masks for: its place in the model, its class tables, and the lookup
    from the data set's ids to the model's."""

    name: str
    number: int
    of_data: Labels
    names: tuple[str, ...]
    to_model: np.ndarray


def _heads(
    model: Segmenter,
    data: Dataset | str | Path,
    split: str,
    folders: tuple[Sequence[str], Sequence[str]],
    ignore_rules: str,
) -> tuple[list[Head], CheckReport]:
    """The heads that can be scored, and the report of the data set with their masks and the model's
    further inputs."""
    dataset = data if isinstance(data, Dataset) else load_dataset(data)
    dataset.pairs_of(split)
    report = check(without_extras(dataset))
    of_heads, of_inputs = folders
    _require_as_many(of_heads, list(model.heads), "heads")
    _require_as_many(of_inputs, [one.name for one in model.extra_inputs], "inputs")
    there = dict(zip(model.heads, of_heads or model.heads, strict=True))
    if not of_heads:
        there = {name: name for name in there if (dataset.root / name).is_dir()}
    dataset, others = add_extra_heads(report, list(there.values()), ignore_rules=ignore_rules)
    dataset = with_extra_inputs(dataset, of_inputs or [one.name for one in model.extra_inputs])
    every = [model.head, *model.heads]
    heads = []
    for name, found, of_data in zip(
        [model.head, *there], [report, *others], dataset.tables, strict=True
    ):
        number = every.index(name)
        labels = model.tables[number]
        lookup = class_mapping(found, labels, split)
        heads.append(Head(name, number, of_data, labels.names, lookup))
    return heads, replace(report, dataset=dataset, fingerprint=fingerprint(report, dataset))


def _require_as_many(folders: Sequence[str], names: Sequence[str], kind: str) -> None:
    if folders and len(folders) != len(names):
        raise FullconvError(
            f"{plural(len(folders), 'folder')} of further {kind} named; the model has "
            f"{truncated_list(names) or 'none'}.",
            f"--{kind} {','.join(names)}" if names else f"leave --{kind} out",
        )


def class_mapping(report: CheckReport, model: Labels, split: str) -> np.ndarray:
    """Lookup from a data set's class ids to a model's, by name; ignore stays out of range.

    Args:
        report: of the data set.
        model: the model's class table.
        split: whose classes must be known. One without a pixel there need not be.

    Raises:
        FullconvError: a class of the data set that the model does not know.
    """
    data, pixels = report.dataset.labels, report.class_pixels[split]
    shown = [name for name, count in zip(data.names, pixels, strict=True) if count]
    lost = [name for name in shown if name not in model.names]
    if lost:
        root = report.dataset.root
        other = f"{shell_command('fullconv', 'train', root)}   # a model of these classes; or\n"
        raise FullconvError(
            f"the model does not know {truncated_list(lost)}, which {split} of {root} shows; it has "
            f"{truncated_list([*model.names])}.",
            other * (lost == shown) + _own_table(report, model),
        )
    beyond = max(data.ignore_index, len(data)) + 1
    lookup = np.full(beyond, np.iinfo(np.int32).max, dtype=np.int32)
    for k, name in enumerate(data.names):
        if name in model.names:
            lookup[k] = model.names.index(name)
    return lookup


def _own_table(report: CheckReport, model: Labels) -> str:
    """A whole dataset.toml in which the classes are the model's."""
    dataset = report.dataset
    told = read_settings(dataset.root)
    values: dict[Value, str] = {meaning.value: meaning.name for meaning in report.meanings}
    if not values:  # every value is the id of its class
        every = zip(*report.class_pixels.values(), strict=True)
        values = {k: dataset.labels.names[k] for k, counts in enumerate(every) if any(counts)}
    named = [(value, name) for value, name in values.items() if name]
    known = {value: name if name in model.names else IGNORE for value, name in named}
    head, *lines = map_table(known).splitlines()
    lost = [name * (name not in (*model.names, IGNORE)) for _, name in named]
    lines = [line + f"   # {name}" * bool(name) for line, name in zip(lines, lost, strict=True)]
    kept = [key for key in ("images", "masks", "layout") if key in told]
    return "\n".join([
        f"{where_to_paste(dataset.root, whole=True)} (another class of the model in place of ignore, "
        "where it means the same):",
        *(f"{key} = {json.dumps(told[key])}" for key in kept),
        f"classes = {json.dumps(list(model.names), ensure_ascii=False)}",
        head,
        *lines,
    ])  # fmt: skip
