"""Runs side by side: their numbers, what sets them apart, and whether the differences are real.

What an evaluation counted in each image (`fullconv.evaluation.per_image`) is all that is needed: no data, no
model. The runs must have been scored by the same protocol. Lines of the card that say what a number
means must agree; those that say what a model is made of may differ where they are named, because
then they are what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fullconv.core.errors import FullconvError
from fullconv.core.text import shell_command, truncated_list
from fullconv.evaluation.bootstrap import METRICS, RESAMPLES, Difference, Interval, differences
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.per_image import SplitConfusions, file_in, run_containing, weights_of
from fullconv.evaluation.protocol import MAY_DIFFER, require_same_images, require_same_protocol
from fullconv.models.run import Run, read_log, read_settings

if TYPE_CHECKING:
    from fullconv.evaluation.evaluate import Evaluation

_SPLITS = ("test", "val", "train")  # which is taken, where all runs have it


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs.

    Args:
        name: what it is called here.
        folder: of the run; None of an evaluation without one.
        metrics: on the split.
        protocol: its card.
        settings: of its training, as far as they are known.
        log: the columns of its log.csv, a number per epoch.
    """

    name: str
    folder: Path | None
    metrics: Metrics
    protocol: Mapping[str, Any]
    settings: Mapping[str, Any]
    log: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Comparison:
    """Runs on the same images.

    Args:
        split: of the data set.
        head: which one; "" for the first.
        runs: in the order in which they were named.
        differences: of each further run against the first.
        varying: lines of the card in which they differ, as was allowed.
        resamples: how often the images were drawn again.
    """

    split: str
    head: str
    runs: tuple[ComparedRun, ...]
    differences: tuple[Difference, ...]
    varying: tuple[str, ...]
    resamples: int

    @property
    def images(self) -> int:
        """How many the split has."""
        return int(self.runs[0].protocol["images"])

    @property
    def apart(self) -> dict[str, list[str]]:
        """Option of the training -> its value in each run, where they are not all the same; and the
        lines of the card that vary."""
        names = dict.fromkeys(name for run in self.runs for name in run.settings)
        rows = {name: [_said(run.settings.get(name)) for run in self.runs] for name in names}
        rows |= {line: [str(run.protocol[line]) for run in self.runs] for line in self.varying}
        return {name: row for name, row in rows.items() if len(set(row)) > 1}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; fractions, None for nan."""
        first = self.runs[0]
        card = {line: of for line, of in first.protocol.items() if line not in self.varying}
        rows = [
            {
                "name": run.name,
                "folder": None if run.folder is None else str(run.folder),
                **{k: v for k, v in run.metrics.to_dict().items() if k != "confusion"},
                "log": {name: list(map(_plain, column)) for name, column in run.log.items()},
            }
            for run in self.runs
        ]
        found = [
            {
                "run": run.name,
                "against": first.name,
                **{name: _facts(of.metrics[name]) for name in METRICS},
                "per_class_iou": {
                    name: {**_facts(one), "real_among_all": one.together}
                    for name, one in zip(first.metrics.names, of.classes, strict=True)
                },
            }
            for run, of in zip(self.runs[1:], self.differences, strict=True)
        ]
        return {
            "split": self.split,
            "head": self.head,
            "images": self.images,
            "resamples": self.resamples,
            "protocol": card,
            "apart": self.apart,
            "runs": rows,
            "differences": found,
        }


def compare(
    *runs: str | Path | Run | Evaluation,
    split: str = "",
    head: str = "",
    varying: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Sets runs side by side, each against the first.

    Args:
        runs: a run's folder, what `fullconv.train` or `fullconv.evaluate` returned, or a file that
            `fullconv evaluate --counts` wrote; two or more.
        split: of the data set. Default: test where all were evaluated on it, else val.
        head: of models with several.
        varying: lines of the protocol card that may differ, because they are what is compared: any
            of pretrained_on, trained_on and test_time_augmentation.
        resamples: how often the images are drawn again; see `fullconv.evaluation.bootstrap`.
        seed: of these.

    Raises:
        FullconvError: no counts of single images, unlike cards, or other images.
    """
    _require(runs, varying, resamples)
    chosen = split or _common_split(runs)
    names = _names(runs)
    every = [_counts(one, name, chosen, runs[0]) for one, name in zip(runs, names, strict=True)]
    places = [_place(one) for one in runs]
    for number, (name, of) in enumerate(zip(names, every, strict=True)):
        require_same_protocol((names[0], every[0]), (name, of), varying, places, number)
    counts = [of.head(head) for of in every]
    margins = [counts[0].margins]
    for name, place, of, one in zip(names[1:], places[1:], every[1:], counts[1:], strict=True):
        order = require_same_images((names[0], every[0]), (name, of), place)
        if one.classes != counts[0].classes:
            raise FullconvError(
                f"the head {head} of {names[0]} and {name} has other classes: "
                f"{truncated_list(counts[0].classes)}; {truncated_list(one.classes)}.",
                "leave --head out",
            )
        margins.append(one.margins[order])
    compared = tuple(
        ComparedRun(
            name, folder, Metrics(one.classes, one.confusion()), of.protocol, *_history(folder)
        )
        for name, folder, of, one in zip(names, map(_folder, runs), every, counts, strict=True)
    )
    found = differences(margins, resamples=resamples, seed=seed)
    differ = [line for line in varying if len({str(of.protocol.get(line)) for of in every}) > 1]
    label = every[0].protocol["split"]
    return Comparison(label, head, compared, tuple(found), tuple(differ), resamples)


def _require(runs: Sequence[Any], varying: Sequence[str], resamples: int) -> None:
    if len(runs) < 2:
        raise FullconvError(
            f"{len(runs) or 'no'} run was named; a comparison needs two or more.",
            shell_command("fullconv", "compare", *(map(_place, runs)), *["RUN"] * (2 - len(runs))),
        )
    for line in varying:
        if line not in MAY_DIFFER:
            raise FullconvError(
                f"the line {line!r} of the protocol card may not vary; what may is "
                f"{', '.join(MAY_DIFFER)}.",
                f"--allow-different {MAY_DIFFER[0]}",
            )
    if resamples < 100:
        raise FullconvError(
            f"{resamples} resamples are too few for an interval; expected 100 or more.",
            f"--resamples {RESAMPLES}",
        )


def _folder(one: Any) -> Path | None:
    """Of the run; None of an evaluation or of a file."""
    if isinstance(one, Run):
        return one.folder
    if isinstance(one, (str, Path)) and Path(one).suffix != ".npz":
        return run_containing(one) or Path(one)
    return None


def _place(one: Any) -> Path | str:
    """What stands in a line to paste."""
    if isinstance(one, (str, Path)):
        return one
    return _folder(one) or "RUN"


def _names(runs: Sequence[Any]) -> list[str]:
    """Short where that tells them apart, else the whole paths."""
    short, long = [], []
    for number, one in enumerate(runs, 1):
        path = _folder(one) or (Path(one) if isinstance(one, (str, Path)) else None)
        short.append(path.resolve().name.removesuffix(".npz") if path else f"evaluation {number}")
        long.append(str(path) if path else f"evaluation {number}")
    names = short if len(set(short)) == len(short) else long
    return [name if name not in names[:k] else f"{name} ({k + 1})" for k, name in enumerate(names)]


def _splits_of(one: Any) -> list[str]:
    """On which there are counts."""
    folder = _folder(one)
    if folder is not None:
        return [split for split in _SPLITS if file_in(folder, split).is_file()]
    return [_given(one).protocol["split"]]


def _common_split(runs: Sequence[Any]) -> str:
    there = [_splits_of(one) for one in runs]
    common = [split for split in there[0] if all(split in one for one in there)]
    if common:
        return common[0]
    wanted = next((split for split in _SPLITS if any(split in one for one in there)), "val")
    return next((one[0] for one in there if len(one) == 1 and one[0] == wanted), wanted)


def _given(one: Any) -> SplitConfusions:
    """Of an evaluation, or of a file."""
    if isinstance(one, (str, Path)):
        return SplitConfusions.read(one)
    counts = getattr(one, "counts", None)
    if not isinstance(counts, SplitConfusions):
        raise FullconvError(
            f"{type(one).__name__} is no run that can be compared; expected a folder, a Run or an "
            "Evaluation.",
            'fc.compare("runs/a", "runs/b")',
        )
    return counts


def _counts(one: Any, name: str, split: str, first: Any) -> SplitConfusions:
    folder = _folder(one)
    if folder is None:
        return _given(one)
    path = file_in(folder, split)
    if not path.is_file():
        raise _no_counts(folder, name, split, _splits_of(one), _data(one, first))
    counts = SplitConfusions.read(path)
    now = weights_of(folder)
    if counts.weights and now and counts.weights != now:
        raise FullconvError(
            f"{path} is of another model than the one that lies in {folder / 'model'} now.",
            shell_command("fullconv", "evaluate", folder, counts.data or "DATA", "--split", split),
        )
    return counts


def _no_counts(
    folder: Path, name: str, split: str, there: Sequence[str], data: str
) -> FullconvError:
    if run_containing(folder) is not None or there:
        return FullconvError(
            f"{name} has no counts of single images of {split}"
            f"{'; it has those of ' + ', '.join(there) if there else ''}.",
            shell_command("fullconv", "evaluate", folder, data, "--split", split),
        )
    if folder.is_file() or (folder / "config.json").is_file():
        words = (folder, data, "--split", split, "--counts", f"{folder.stem}_{split}.npz")
        return FullconvError(
            f"{folder} lies in no run, so that nothing was kept of its evaluations.",
            f"{shell_command('fullconv', 'evaluate', *words)}   # and compare that file",
        )
    return FullconvError(
        f"{folder} is no folder of a run: it has neither a model nor counts of images.",
        "fullconv train DATA",
    )


def _data(one: Any, first: Any) -> str:
    """The data set's folder: of the first run's counts, or of the training."""
    for run in (first, one):
        folder = _folder(run)
        if folder is None:
            return _given(run).data or "DATA"
        for split in _splits_of(run):
            return SplitConfusions.read(file_in(folder, split)).data or "DATA"
        if root := read_settings(folder).get("data", {}).get("root"):
            return str(root)
    return "DATA"


def _history(folder: Path | None) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Settings and log."""
    if folder is None:
        return {}, {}
    return read_settings(folder).get("train", {}), read_log(folder / "log.csv")


def _said(value: Any) -> str:
    """A setting in a table; a backbone card by its name."""
    text = "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return Path(text).stem if text.endswith(".toml") else text


def _facts(one: Interval) -> dict[str, Any]:
    facts = {k: _plain(v) for k, v in asdict(one).items() if k != "together"}
    return {"difference": facts.pop("value"), **facts, "real": one.real}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
