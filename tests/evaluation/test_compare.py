"""Comparing runs: numbers, splits, names, and every refusal with its command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import CLASSES, confusions, counted, matrices, written

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.data.synthetic import scenes as synthetic
from fullconv.evaluation.compare import compare
from fullconv.evaluation.evaluate import Evaluation, evaluate
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.per_image import SplitConfusions, file_in, save_next_to_run
from fullconv.evaluation.protocol import MAY_DIFFER, require_same_images, require_same_protocol

SMALL, LARGE = matrices(30, right=0.6), matrices(30, right=0.7)
SIX = matrices(6)
WITHOUT_HEAD = "run the command again without --head"
TRAIN_VAL = "train+val (468 images)"
NAMES = [f"street_{k:04}" for k in range(6)]
Runs = tuple[Path, Path]


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return (
        written(tmp_path / "small", counted(SMALL)),
        written(tmp_path / "large", counted(LARGE), stride=16, epochs=5),
    )


def refused(*runs: Any, **options: Any) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        compare(*runs, **options)
    return caught.value


def test_the_numbers_are_those_of_the_runs_and_of_their_difference(runs: Runs) -> None:
    comparison = compare(*runs, resamples=200)
    facts = comparison.to_dict()
    assert json.loads(json.dumps(facts)) == facts
    assert [run["name"] for run in facts["runs"]] == ["small", "large"]
    for run, folder in zip(facts["runs"], runs, strict=True):
        metrics = json.loads((folder / "metrics.json").read_text())
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "per_class_iou"):
            assert run[name] == metrics[name]
        assert run["log"]["epoch"] == list(range(1, len(run["log"]["loss"]) + 1))
    (difference,) = facts["differences"]
    assert (difference["run"], difference["against"]) == ("large", "small")
    small, large = (Metrics(CLASSES, counts.sum(0)) for counts in (SMALL, LARGE))
    mean, road = difference["mean_iou"], difference["per_class_iou"]["road"]
    assert mean["difference"] == pytest.approx(large.mean_iou - small.mean_iou)
    assert mean["significant"] == (mean["low"] > 0)
    assert road["difference"] == pytest.approx(large.class_iou[1] - small.class_iou[1])
    assert set(road) == {"difference", "low", "high", "significant", "significant_familywise"}
    assert facts["differing_settings"] == {"stride": ["8", "16"]}
    assert (comparison.split, comparison.images, comparison.varying) == ("val", 30, ())


def test_images_are_paired_by_name_and_each_run_is_compared_with_the_first(runs: Runs) -> None:
    order = np.random.default_rng(0).permutation(30)
    names = [f"street_{k:04}" for k in order]
    shuffled = written(runs[0].parent / "shuffled", counted(LARGE[order], names=names))
    third = written(runs[0].parent / "third", counted(matrices(30, right=0.8)))
    expected = [compare(runs[0], run, resamples=200).differences[0] for run in (runs[1], third)]
    result = compare(runs[0], shuffled, third, resamples=200)
    assert list(result.differences) == expected


def test_runs_evaluations_and_files_can_be_mixed(runs: Runs, tmp_path: Path) -> None:
    expected = compare(*runs, resamples=200).differences
    counts = counted(LARGE)
    file = counts.save(tmp_path / "onnx.npz")
    evaluation = Evaluation(Metrics(CLASSES, LARGE.sum(0)), dict(counts.protocol), counts=counts)
    run = fc.open_run(runs[0])
    for other, name in ((file, "onnx"), (evaluation, "evaluation 2"), (runs[1] / "model", "large")):
        result = compare(run, other, resamples=200)
        assert result.differences == expected
        assert [compared.name for compared in result.runs] == ["small", name]
    assert fc.compare is compare


def test_names_are_unique(tmp_path: Path) -> None:
    one, other = (written(tmp_path / k / "run", counted(SMALL)) for k in "ab")
    names = [run.name for run in compare(one, other, resamples=100).runs]
    assert names == [str(one), str(other)]
    names = [run.name for run in compare(one, one, resamples=100).runs]
    assert names == [str(one), f"{one} (2)"]


def test_the_default_split_is_one_that_all_runs_have_test_first(runs: Runs) -> None:
    for run in runs:
        save_next_to_run(counted(SMALL, split="test"), run)
    assert compare(*runs, resamples=100).split == "test"
    assert compare(*runs, split="val", resamples=100).split == "val"
    file_in(runs[1], "test").unlink()
    assert compare(*runs, resamples=100).split == "val"


def with_head(counts: np.ndarray, classes: tuple[str, ...]) -> SplitConfusions:
    first = counted(counts)
    heads = {"masks": first.head(), "rooms": confusions(classes, counts[:, :2, :2])}
    return replace(first, heads=heads)


def test_an_additional_head(runs: Runs) -> None:
    for run, counts in zip(runs, (SMALL, LARGE), strict=True):
        save_next_to_run(with_head(counts, ("in", "out")), run)
    result = compare(*runs, head="rooms", resamples=100)
    assert [len(run.metrics.names) for run in result.runs] == [2, 2]
    save_next_to_run(with_head(LARGE, ("in", "roof")), runs[1])
    error = refused(*runs, head="rooms")
    assert "head rooms of small and large has different classes: in, out; in, roof" in error.message
    assert error.hint == WITHOUT_HEAD


def both(small: Path, large: Path) -> tuple[Any, ...]:
    return small, large


def lose_counts(small: Path, large: Path) -> tuple[Any, ...]:
    file_in(large, "val").unlink()
    return small, large


def retrain(small: Path, large: Path) -> tuple[Any, ...]:
    (large / "model" / "config.json").write_text(json.dumps({"weights_sha256": "further"}))
    return small, large


def take_model_out(small: Path, large: Path) -> tuple[Any, ...]:
    (large / "config.toml").unlink()
    return small, large / "model"


NUMBER = "cannot compare a value of type int; expected a folder"
EVALUATE = "fullconv evaluate {large} /data --split val"
COUNTS = "fullconv evaluate {large}/model /data --split val --counts model_val.npz"
REFUSALS: list[tuple[Callable[[Path, Path], tuple[Any, ...]], dict[str, Any], str, str]] = [
    (lambda a, b: (), {}, "0 runs were given; a comparison needs two", "fullconv compare RUN RUN"),
    (lambda a, b: (a,), {}, "1 run was given; a comparison", "fullconv compare {small} RUN"),
    (
        both,
        {"split": "test"},
        "small has no per-image counts of test; it has those of val.",
        "fullconv evaluate {small} /data --split test",
    ),
    (lose_counts, {}, "large has no per-image counts of val.", EVALUATE),
    (retrain, {}, "counts_val.npz is from another model than the one in {large}/model.", EVALUATE),
    (
        take_model_out,
        {},
        "{large}/model is in no run, so its evaluations left no per-image counts.",
        COUNTS + "   # and compare that file",
    ),
    (
        lambda a, b: (a, b / "nowhere"),
        {},
        "{large}/nowhere is no run folder: it has neither a model nor per-image counts.",
        "fullconv train DATA",
    ),
    (lambda a, b: (a, 5), {}, NUMBER, 'fc.compare("runs/a"'),
    (lambda a, b: (a, b / "a.npz"), {}, "there is no such file", "--counts {large}/a.npz"),
    (
        both,
        {"varying": ["split"]},
        "line 'split' of the protocol card must not differ; these may: pretrained_on, trained_on",
        "--allow-different pretrained_on",
    ),
    (both, {"resamples": 9}, "9 resamples are too few", "--resamples 4000"),
    (both, {"head": "rooms"}, "the model has only one head", WITHOUT_HEAD),
]


@pytest.mark.parametrize(("prepare", "options", "message", "hint"), REFUSALS)
def test_what_cannot_be_compared(
    runs: Runs,
    prepare: Callable[[Path, Path], tuple[Any, ...]],
    options: dict[str, Any],
    message: str,
    hint: str,
) -> None:
    error = refused(*prepare(*runs), **options)
    names = {"small": runs[0], "large": runs[1]}
    assert message.format_map(names) in error.message
    assert hint.format_map(names) in error.hint


def test_different_protocols_are_never_ranked(runs: Runs) -> None:
    save_next_to_run(counted(LARGE, trained_on=TRAIN_VAL), runs[1])
    assert "  trained_on: train (367 images) | train+val (468 images)" in refused(*runs).message
    comparison = compare(*runs, varying=["trained_on"], resamples=100)
    assert comparison.varying == ("trained_on",)
    assert comparison.differing_settings["trained_on"] == ["train (367 images)", TRAIN_VAL]
    assert "trained_on" not in comparison.to_dict()["protocol"]
    third = written(runs[0].parent / "third", counted(SMALL, pretrained_on="nothing"))
    error = refused(runs[0], third)
    assert error.message.startswith("small and third cannot be compared")
    assert error.hint.startswith(f"fullconv compare {runs[0]} {third} --split val --allow-diff")


def test_neither_data_nor_torch_is_needed(runs: Runs) -> None:
    code = (
        "import sys; from fullconv.evaluation.compare import compare; "
        "from fullconv.evaluation.report.comparison import save_comparison; "
        f"save_comparison(compare({str(runs[0])!r}, {str(runs[1])!r}), 'page.html'); "
        "print({'torch', 'timm', 'lightning'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=runs[0]) == b"set()\n"


def test_a_model_on_images_of_another_size_and_on_flipped_ones(
    model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    """From the files to the refusal."""
    small = synthetic.write(tmp_path / "small", train=3, val=2, test=2, size=(40, 56))
    plain = evaluate(model_folder, scenes, split="val")
    message = refused(plain, evaluate(model_folder, small, split="val")).message
    assert "  image_size: original, 48 x 64 | original, 40 x 56" in message
    assert "files differ in evaluation 2: street_0000, street_0001 (2 images)" in message
    flipped = evaluate(model_folder, scenes, split="val", flip=True)
    assert "  test_time_augmentation: none | flip" in refused(plain, flipped).message
    comparison = compare(plain, flipped, varying=["test_time_augmentation"], resamples=100)
    assert comparison.differing_settings == {"test_time_augmentation": ["none", "flip"]}
    assert comparison.runs[0].metrics.mean_iou == plain.metrics.mean_iou


def protocol_error(first: SplitConfusions, other: SplitConfusions, *varying: str) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        require_same_protocol(("a", first), ("b", other), varying, ("runs/a", "runs/b"), 1)
    return caught.value


def lines_of(error: FullconvError) -> list[str]:
    first, *lines = error.message.splitlines()
    assert first == "a and b cannot be compared: their evaluation protocols differ."
    return [line.strip() for line in lines]


def card(**changes: Any) -> SplitConfusions:
    return counted(SIX, **changes)


def classes(*names: str) -> SplitConfusions:
    return counted(matrices(6, len(names)), classes=names)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (card(image_size="72 x 96"), "image_size: original, 360 x 480 | 72 x 96"),
        (card(trained_on=TRAIN_VAL), f"trained_on: train (367 images) | {TRAIN_VAL}"),
        (card(pretrained_on="nothing"), "pretrained_on: ImageNet-1k | nothing"),
        (card(split="test"), "split: val | test"),
        (card(ignored_pixels=7), "ignored_pixels: 0 | 7"),
        (card(images=5), "images: 6 | 5"),
        (card(void="x"), "void: pixels marked ignore in the truth are left out | x"),
        (card(test_time_augmentation="flip"), "test_time_augmentation: none | flip"),
        (card(metric="x"), "metric: one confusion matrix over all pixels of the split | x"),
        (card(of_tomorrow="x"), "of_tomorrow: not stated | x"),
        (classes("tree", "sky", "road"), "classes: the same 3 classes in another order"),
        (classes("sky", "road", "wood"), "classes: 3 classes, also tree | 3 classes, also wood"),
        (classes("sky", "road", "tree", "car"), "classes: 3 classes | 4 classes, also car"),
    ],
)
def test_a_line_that_differs_is_named_with_both_values(other: SplitConfusions, line: str) -> None:
    assert lines_of(protocol_error(counted(SIX), other)) == [line]
    require_same_protocol(("a", counted(SIX)), ("b", counted(SIX)), (), ("a", "b"), 1)


def test_a_fingerprint_comes_last_and_is_explained() -> None:
    first = counted(SIX, data="/small data")
    options = {"image_size": "original, 720 x 960", "data_fingerprint": "0" * 64}
    error = protocol_error(first, counted(SIX, data="/big", **options))
    assert lines_of(error) == [
        "image_size: original, 360 x 480 | original, 720 x 960",
        f"data_fingerprint: {'f' * 16} | {'0' * 16}",
        "(the images and masks of val are the same; other splits or the class table differ)",
    ]
    assert error.hint == (
        "fullconv evaluate runs/b '/small data' --split val   # on the data of the first run, "
        "then compare"
    )
    other = counted(SIX, names=[*NAMES[:4], "x", "y"], data_fingerprint="0" * 64)
    assert lines_of(protocol_error(counted(SIX), other))[-1] == (
        "(only a has street_0004, street_0005 (2 images); only b has x, y (2 images))"
    )


@pytest.mark.parametrize("line", MAY_DIFFER)
def test_lines_of_the_model_may_differ_if_they_are_named(line: str) -> None:
    first, other = counted(SIX), counted(SIX, **{line: "something else"})
    require_same_protocol(("a", first), ("b", other), (line,), ("runs/a", "runs/b"), 1)
    error = protocol_error(first, other, *(set(MAY_DIFFER) - {line}))
    assert lines_of(error)[0].startswith(f"{line}: ")


def test_the_hint_is_a_command_that_helps() -> None:
    first, trained = counted(SIX, data="/d"), counted(SIX, trained_on="x")
    assert protocol_error(first, trained).hint == (
        "fullconv compare runs/a runs/b --split val --allow-different trained_on   "
        "# if this is what you compare"
    )
    both = counted(SIX, trained_on="x", pretrained_on="y")
    hint = protocol_error(first, both, "trained_on").hint
    assert "--allow-different trained_on,pretrained_on " in hint
    flipped = counted(SIX, test_time_augmentation="flip", data="/d")
    also = "   # or, to compare this, --allow-different test_time_augmentation"
    hint = f"fullconv evaluate runs/b /d --split val{also}"
    assert protocol_error(first, flipped).hint == hint
    assert protocol_error(flipped, first).hint == hint.replace("runs/b", "runs/a")
    with pytest.raises(FullconvError) as caught:
        require_same_protocol(("a", first), ("b", flipped), (), ("runs/a", "my b.npz"), 1)
    hint = f"fullconv evaluate MODEL /d --split val --counts 'my b.npz'{also}"
    assert caught.value.hint == hint


def test_different_images_are_refused() -> None:
    first, fewer = counted(SIX, data="/d"), counted(SIX[:5], names=NAMES[:5])
    with pytest.raises(FullconvError, match=r"same images: only a has street_0005 \(1") as caught:
        require_same_images(("a", first), ("b", fewer), "runs/b")
    assert caught.value.hint == "fullconv evaluate runs/b /d --split val"
    changed = replace(first, contents=("0" * 16, *first.contents[1:]))
    with pytest.raises(FullconvError, match=r"files differ in b: street_0000 \(1 image\)\."):
        require_same_images(("a", first), ("b", changed))
