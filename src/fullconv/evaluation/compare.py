"""Compare runs: their metrics, the settings that differ, and which differences are significant.

Comparing needs only the per-image counts of the evaluations (`fullconv.evaluation.per_image`): no
data and no model. The runs must have been evaluated by the same protocol.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg, nmsg
from fullconv.core.text import shell_command, truncated_list
from fullconv.evaluation.bootstrap import METRICS, RESAMPLES, Difference, Interval, differences
from fullconv.evaluation.metrics import Metrics, none_if_nan
from fullconv.evaluation.per_image import SplitConfusions, file_in, run_containing, weights_of
from fullconv.evaluation.protocol import MAY_DIFFER, require_same_images, require_same_protocol
from fullconv.models.run import Run, read_log, read_settings

if TYPE_CHECKING:
    from fullconv.evaluation.evaluate import Evaluation

_SPLITS = ("test", "val", "train")  # the first that all runs have is the default
_MIN_RESAMPLES = 100


@dataclass(frozen=True)
class ComparedRun:
    """One of the compared runs."""

    name: str  # short and unique among the runs
    folder: Path | None  # of the run; None for an evaluation or a counts file
    metrics: Metrics
    protocol: Mapping[str, Any]
    settings: Mapping[str, Any]  # training options, if they are known
    log: Mapping[str, Sequence[float]]  # the columns of log.csv, a number per epoch


@dataclass(frozen=True)
class Comparison:
    """Runs on the same images."""

    split: str
    head: str  # "" for the first
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]  # of each run after the first from the first
    varying: tuple[str, ...]  # lines of the protocol card that differ and may do so
    resamples: int

    @property
    def images(self) -> int:
        """Number of images in the split."""
        return int(self.runs[0].protocol["images"])

    @property
    def compared(self) -> list[tuple[ComparedRun, Difference]]:
        """Each run after the first, with its difference from the first."""
        return list(zip(self.runs[1:], self.differences, strict=True))

    @property
    def differing_settings(self) -> dict[str, list[str]]:
        """Training options and protocol lines that differ, with their value in each run."""
        names = dict.fromkeys(name for run in self.runs for name in run.settings)
        rows = {name: [_setting(run.settings.get(name)) for run in self.runs] for name in names}
        rows |= {line: [str(run.protocol[line]) for run in self.runs] for line in self.varying}
        return {name: row for name, row in rows.items() if len(set(row)) > 1}

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON: fractions, None for NaN."""
        first = self.runs[0]
        runs = [
            {
                "name": run.name,
                "folder": None if run.folder is None else str(run.folder),
                **{k: v for k, v in run.metrics.to_dict().items() if k != "confusion"},
                "log": {name: list(map(none_if_nan, column)) for name, column in run.log.items()},
            }
            for run in self.runs
        ]
        differences = []
        for run, difference in self.compared:
            classes = zip(first.metrics.names, difference.classes, strict=True)
            per_class = {
                name: {**_interval_dict(i), "significant_familywise": i.significant_familywise}
                for name, i in classes
            }
            metrics = {name: _interval_dict(difference.metrics[name]) for name in METRICS}
            names = {"run": run.name, "against": first.name}
            differences.append({**names, **metrics, "per_class_iou": per_class})
        return {
            "split": self.split,
            "head": self.head,
            "images": self.images,
            "resamples": self.resamples,
            "protocol": {k: v for k, v in first.protocol.items() if k not in self.varying},
            "differing_settings": self.differing_settings,
            "runs": runs,
            "differences": differences,
        }


def compare(
    *runs: str | Path | Run | Evaluation,
    split: str = "",
    head: str = "",
    varying: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare runs, each with the first.

    Args:
        runs: two or more run folders, results of `fullconv.train` or `fullconv.evaluate`, or files
            that `fullconv evaluate --counts` wrote.
        split: of the dataset. Default: test if all runs were evaluated on it, else val.
        head: name of a head of models with several. Default: the first.
        varying: lines of the protocol card that may differ because they are what is compared:
            pretrained_on, trained_on, test_time_augmentation.
        resamples, seed: of the bootstrap; see `fullconv.evaluation.bootstrap`.

    Raises:
        FullconvError: no per-image counts, different protocols, or different images.
    """
    # What to write for each run in a command.
    sources = [run if isinstance(run, (str, Path)) else _folder(run) or "RUN" for run in runs]
    _check_arguments(sources, varying, resamples)
    split = split or _common_split(runs)
    names = _short_names(runs)
    counts = [_counts(run, name, split, runs[0]) for run, name in zip(runs, names, strict=True)]

    # Only like is compared with like.
    named = list(zip(names, counts, strict=True))
    for number, other in enumerate(named):
        require_same_protocol(named[0], other, varying, sources, number)
    heads = [split_counts.head(head) for split_counts in counts]
    margins = [heads[0].margins]
    for other, source, other_head in zip(named[1:], sources[1:], heads[1:], strict=True):
        order = require_same_images(named[0], other, source)
        if other_head.classes != heads[0].classes:
            problem = msg(
                "head {head} of {first} and {other} has different classes: {classes}; "
                "{other_classes}.",
                head=head,
                first=names[0],
                other=other[0],
                classes=truncated_list(heads[0].classes),
                other_classes=truncated_list(other_head.classes),
            )
            raise FullconvError(problem, msg("run the command again without --head"))
        margins.append(other_head.margins[order])

    compared = []
    for (name, split_counts), folder, own in zip(named, map(_folder, runs), heads, strict=True):
        metrics = Metrics(own.classes, own.confusion())
        settings = {} if folder is None else read_settings(folder).get("train", {})
        log = {} if folder is None else read_log(folder / "log.csv")
        compared.append(ComparedRun(name, folder, metrics, split_counts.protocol, settings, log))
    differ = [line for line in varying if len({str(c.protocol.get(line)) for c in counts}) > 1]
    return Comparison(
        counts[0].protocol["split"],
        head,
        tuple(compared),
        tuple(differences(margins, resamples=resamples, seed=seed)),
        tuple(differ),
        resamples,
    )


def _check_arguments(sources: Sequence[Any], varying: Sequence[str], resamples: int) -> None:
    if len(sources) < 2:
        problem = nmsg(
            "{count} run was given; a comparison needs two or more.",
            "{count} runs were given; a comparison needs two or more.",
            len(sources),
        )
        missing = ["RUN"] * (2 - len(sources))
        raise FullconvError(problem, shell_command("fullconv", "compare", *sources, *missing))
    for line in varying:
        if line not in MAY_DIFFER:
            problem = msg(
                "line {line!r} of the protocol card must not differ; these may: {lines}.",
                line=line,
                lines=truncated_list(MAY_DIFFER),
            )
            raise FullconvError(problem, shell_command("--allow-different", MAY_DIFFER[0]))
    if resamples < _MIN_RESAMPLES:
        problem = msg(
            "{count} resamples are too few for an interval; expected {minimum} or more.",
            count=resamples,
            minimum=_MIN_RESAMPLES,
        )
        raise FullconvError(problem, shell_command("--resamples", RESAMPLES))


def _folder(run: Any) -> Path | None:
    """Return the folder of a run; None for an evaluation or a file."""
    if isinstance(run, Run):
        return run.folder
    if isinstance(run, (str, Path)) and Path(run).suffix != ".npz":
        return run_containing(run) or Path(run)
    return None


def _short_names(runs: Sequence[Any]) -> list[str]:
    """Return folder or file names if they differ, else whole paths."""
    short, long = [], []
    for number, run in enumerate(runs, 1):
        path = _folder(run) or (Path(run) if isinstance(run, (str, Path)) else None)
        short.append(path.resolve().name.removesuffix(".npz") if path else f"evaluation {number}")
        long.append(str(path) if path else f"evaluation {number}")
    names = short if len(set(short)) == len(short) else long
    return [name if name not in names[:k] else f"{name} ({k + 1})" for k, name in enumerate(names)]


def _evaluated_splits(run: Any) -> list[str]:
    folder = _folder(run)
    if folder is None:
        return [_counts_of_evaluation(run).protocol["split"]]
    return [split for split in _SPLITS if file_in(folder, split).is_file()]


def _common_split(runs: Sequence[Any]) -> str:
    """Return the first split that all runs have; else one that a run has, for the error."""
    splits = [_evaluated_splits(run) for run in runs]
    common = [split for split in splits[0] if all(split in other for other in splits)]
    some = [split for split in _SPLITS if any(split in other for other in splits)]
    return [*common, *some, "val"][0]


def _counts_of_evaluation(run: Any) -> SplitConfusions:
    """Return the counts of an evaluation or of a file."""
    if isinstance(run, (str, Path)):
        return SplitConfusions.read(run)
    counts = getattr(run, "counts", None)
    if isinstance(counts, SplitConfusions):
        return counts
    problem = msg(
        "cannot compare a value of type {type}; expected a folder, a Run or an Evaluation.",
        type=type(run).__name__,
    )
    raise FullconvError(problem, 'fc.compare("runs/a", "runs/b")')


def _counts(run: Any, name: str, split: str, first: Any) -> SplitConfusions:
    """Return the counts of a run on a split, or say how to get them: on the data of the first."""
    folder = _folder(run)
    if folder is None:
        return _counts_of_evaluation(run)
    path = file_in(folder, split)
    if path.is_file():
        counts = SplitConfusions.read(path)
        weights = weights_of(folder)
        if not counts.weights or not weights or counts.weights == weights:
            return counts
        model, data = folder / "model", counts.data or "DATA"
        problem = msg(
            "{path} is from another model than the one in {model}.", path=path, model=model
        )
        raise FullconvError(problem, _evaluate_command(folder, data, split))

    splits = _evaluated_splits(run)
    command = _evaluate_command(folder, _data_folder(run, first), split)
    if splits:
        problem = msg(
            "{name} has no per-image counts of {split}; it has those of {splits}.",
            name=name,
            split=split,
            splits=truncated_list(splits),
        )
    elif run_containing(folder) is not None:
        problem = msg("{name} has no per-image counts of {split}.", name=name, split=split)
    elif folder.is_file() or (folder / "config.json").is_file():
        command += " " + shell_command("--counts", f"{folder.stem}_{split}.npz")
        problem = msg(
            "{path} is in no run, so its evaluations left no per-image counts.", path=folder
        )
        command = msg("{command}   # and compare that file", command=command)
    else:
        problem = msg(
            "{path} is no run folder: it has neither a model nor per-image counts.", path=folder
        )
        command = "fullconv train DATA"
    raise FullconvError(problem, command)


def _evaluate_command(folder: Path, data: str, split: str) -> str:
    return shell_command("fullconv", "evaluate", folder, data, "--split", split)


def _data_folder(run: Any, first: Any) -> str:
    """Return the dataset's folder, from the counts of the first run or from the training."""
    for candidate in (first, run):
        folder = _folder(candidate)
        if folder is None:
            return _counts_of_evaluation(candidate).data or "DATA"
        for split in _evaluated_splits(candidate):
            return SplitConfusions.read(file_in(folder, split)).data or "DATA"
        if root := read_settings(folder).get("data", {}).get("root"):
            return str(root)
    return "DATA"


def _setting(value: Any) -> str:
    """Format an option for a table; a backbone config file by its name."""
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return Path(text).stem if text.endswith(".toml") else text


def _interval_dict(interval: Interval) -> dict[str, Any]:
    return {
        "difference": none_if_nan(interval.value),
        "low": none_if_nan(interval.low),
        "high": none_if_nan(interval.high),
        "significant": interval.significant,
    }
