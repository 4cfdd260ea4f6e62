"""Runs side by side: which numbers, which split, which names, and every mistake in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluated import CLASSES, counted, matrices, written

import fullconv as fc
from fullconv.core.errors import FullconvError
from fullconv.data.synthetic import scenes as drawn
from fullconv.evaluation.compare import Comparison, compare
from fullconv.evaluation.evaluate import Evaluation, evaluate
from fullconv.evaluation.metrics import Metrics
from fullconv.evaluation.per_image import (
    ImageConfusions,
    SplitConfusions,
    file_in,
    save_next_to_run,
    sparse_row,
)

ONE, OTHER = matrices(30, right=0.6), matrices(30, right=0.7)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    return (
        written(tmp_path / "small", counted(ONE)),
        written(tmp_path / "large", counted(OTHER), stride=16, epochs=5),
    )


def refused(*runs: object, **options: object) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        compare(*runs, **options)  # type: ignore[arg-type]
    return caught.value


def test_the_numbers_are_those_of_the_runs_and_of_their_difference(
    runs: tuple[Path, Path],
) -> None:
    found = compare(*runs, resamples=200)
    assert [run.name for run in found.runs] == ["small", "large"]
    facts = found.to_dict()
    assert json.loads(json.dumps(facts)) == facts
    for run, folder in zip(facts["runs"], runs, strict=True):
        metrics = json.loads((folder / "metrics.json").read_text())
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
            assert run[name] == metrics[name]
        assert run["per_class_iou"] == metrics["per_class_iou"]
        assert run["log"]["epoch"] == list(range(1, len(run["log"]["loss"]) + 1))
    (difference,) = facts["differences"]
    assert (difference["run"], difference["against"]) == ("large", "small")
    a, b = (Metrics(CLASSES, every.sum(0)) for every in (ONE, OTHER))
    assert difference["mean_iou"]["difference"] == pytest.approx(b.mean_iou - a.mean_iou)
    assert difference["mean_iou"]["significant"] == (difference["mean_iou"]["low"] > 0)
    assert difference["per_class_iou"]["road"]["difference"] == pytest.approx(
        b.class_iou[1] - a.class_iou[1]
    )
    assert facts["differing_settings"] == {"stride": ["8", "16"]}
    assert (found.split, found.images, found.varying) == ("val", 30, ())


def test_the_images_need_not_lie_in_the_same_order(runs: tuple[Path, Path]) -> None:
    order = np.random.default_rng(0).permutation(30)
    names = [f"street_{k:04}" for k in order]
    turned = written(runs[0].parent / "turned", counted(OTHER[order], names=names))
    expected, found = (compare(runs[0], other, resamples=200) for other in (runs[1], turned))
    assert found.differences == expected.differences


def test_several_runs_stand_against_the_first(runs: tuple[Path, Path]) -> None:
    third = written(runs[0].parent / "third", counted(matrices(30, right=0.8)))
    found = compare(*runs, third, resamples=200)
    assert len(found.differences) == 2
    assert found.differences[0] == compare(*runs, resamples=200).differences[0]
    assert found.differences[1] == compare(runs[0], third, resamples=200).differences[0]


def test_runs_evaluations_and_files_may_be_mixed(runs: tuple[Path, Path], tmp_path: Path) -> None:
    expected = compare(*runs, resamples=200).differences
    file = counted(OTHER).save(tmp_path / "onnx.npz")
    of = counted(OTHER)
    evaluation = Evaluation(Metrics(CLASSES, OTHER.sum(0)), dict(of.protocol), counts=of)
    run = fc.open_run(runs[0])
    for other, name in ((file, "onnx"), (evaluation, "evaluation 2"), (runs[1] / "model", "large")):
        found = compare(run, other, resamples=200)
        assert found.differences == expected
        assert [one.name for one in found.runs] == ["small", name]
    assert fc.compare is compare


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    one, other = (written(tmp_path / k / "run", counted(ONE)) for k in "ab")
    assert [run.name for run in compare(one, other, resamples=100).runs] == [str(one), str(other)]
    found = compare(one, one, resamples=100)
    assert [run.name for run in found.runs] == [str(one), f"{one} (2)"]


def test_a_split_that_all_have_is_taken_test_first(runs: tuple[Path, Path]) -> None:
    for run in runs:
        save_next_to_run(counted(ONE, split="test"), run)
    assert compare(*runs, resamples=100).split == "test"
    assert compare(*runs, split="val", resamples=100).split == "val"
    file_in(runs[1], "test").unlink()
    assert compare(*runs, resamples=100).split == "val"


def test_a_run_without_counts_is_told_how_to_get_them(runs: tuple[Path, Path]) -> None:
    error = refused(*runs, split="test")
    assert error.message == "small has no counts of single images of test; it has those of val."
    assert error.hint == f"fullconv evaluate {runs[0]} /data --split test"
    file_in(runs[1], "val").unlink()
    error = refused(*runs)
    assert error.message == "large has no counts of single images of val."
    assert error.hint == f"fullconv evaluate {runs[1]} /data --split val"


def test_counts_of_another_model_are_refused(runs: tuple[Path, Path]) -> None:
    config = runs[1] / "model" / "config.json"
    config.write_text(json.dumps({"weights_sha256": "trained further"}))
    error = refused(*runs)
    assert error.message == (
        f"{file_in(runs[1], 'val')} is of another model than the one that lies in "
        f"{runs[1] / 'model'} now."
    )
    assert error.hint == f"fullconv evaluate {runs[1]} /data --split val"


def test_what_is_no_run_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path / "nowhere"):
        error = refused(runs[0], place)
        assert error.message == (
            f"{place} is no folder of a run: it has neither a model nor counts of images."
        )
        assert error.hint == "fullconv train DATA"
    (tmp_path / "model.onnx").write_bytes(b"")
    for model in (tmp_path / "model.onnx", runs[1] / "model"):
        (runs[1] / "config.toml").unlink(missing_ok=True)  # now a model of nowhere
        error = refused(runs[0], model)
        assert error.message == (
            f"{model} lies in no run, so that nothing was kept of its evaluations."
        )
        assert error.hint == (
            f"fullconv evaluate {model} /data --split val --counts model_val.npz   "
            "# and compare that file"
        )
    assert refused(runs[0], 5).message.startswith("int is no run that can be compared; expected")
    assert refused(runs[0], tmp_path / "a.npz").message.endswith("there is no such file.")


@pytest.mark.parametrize(("count", "said"), [(0, "no run was named"), (1, "1 run was named")])
def test_one_run_is_no_comparison(runs: tuple[Path, Path], count: int, said: str) -> None:
    error = refused(*runs[:count])
    assert error.message == f"{said}; a comparison needs two or more."
    assert error.hint == " ".join(
        ["fullconv compare", *map(str, runs[:count]), *["RUN"] * (2 - count)]
    )


def test_options_that_cannot_be(runs: tuple[Path, Path]) -> None:
    error = refused(*runs, varying=["split"])
    assert error.message == (
        "the line 'split' of the protocol card may not vary; what may is pretrained_on, "
        "trained_on, test_time_augmentation."
    )
    assert error.hint == "--allow-different pretrained_on"
    error = refused(*runs, resamples=9)
    assert (error.message[:29], error.hint) == ("9 resamples are too few for a", "--resamples 4000")
    assert refused(*runs, head="rooms").hint == "leave --head out"


def test_unlike_cards_are_never_ranked(runs: tuple[Path, Path]) -> None:
    save_next_to_run(counted(OTHER, trained_on="train+val (468 images)"), runs[1])
    error = refused(*runs)
    assert "  trained_on: train (367 images) | train+val (468 images)" in error.message
    found = compare(*runs, varying=["trained_on"], resamples=100)
    assert found.varying == ("trained_on",)
    assert found.differing_settings["trained_on"] == [
        "train (367 images)",
        "train+val (468 images)",
    ]
    assert "trained_on" not in found.to_dict()["protocol"]
    save_next_to_run(counted(OTHER, image_size="original, 180 x 240"), runs[1])
    said = refused(*runs).message
    assert "  image_size: original, 360 x 480 | original, 180 x 240" in said


def test_a_third_run_is_checked_against_the_first(runs: tuple[Path, Path]) -> None:
    third = written(runs[0].parent / "third", counted(ONE, pretrained_on="nothing"))
    error = refused(*runs, third)
    assert error.message.startswith("small and third cannot be compared")
    places = " ".join(map(str, (*runs, third)))
    assert error.hint.startswith(
        f"fullconv compare {places} --split val --allow-different pretrained_on "
    )


def with_head(every: np.ndarray, classes: tuple[str, ...]) -> SplitConfusions:
    of = counted(every)
    further = ImageConfusions.from_rows(classes, [sparse_row(one[:2, :2]) for one in every])
    heads = {"masks": of.head(), "rooms": further}
    return SplitConfusions(of.images, of.contents, heads, of.protocol, of.data)


def test_additional_heads(runs: tuple[Path, Path]) -> None:
    for run, every in zip(runs, (ONE, OTHER), strict=True):
        save_next_to_run(with_head(every, ("in", "out")), run)
    found = compare(*runs, head="rooms", resamples=100)
    assert [len(run.metrics.names) for run in found.runs] == [2, 2]
    save_next_to_run(with_head(OTHER, ("in", "roof")), runs[1])
    error = refused(*runs, head="rooms")
    assert (
        error.message == "the head rooms of small and large has other classes: in, out; in, roof."
    )
    assert error.hint == "leave --head out"


def test_neither_data_nor_torch_is_needed(runs: tuple[Path, Path]) -> None:
    code = (
        "import sys; from fullconv.evaluation.compare import compare; "
        f"compare({str(runs[0])!r}, {str(runs[1])!r}).save('page.html'); "
        "print([m for m in ('torch', 'timm', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=runs[0]
    )
    assert done.stdout == "[]\n"


def test_what_notebooks_show(runs: tuple[Path, Path]) -> None:
    found = compare(*runs, resamples=100)
    assert isinstance(found, Comparison)
    assert "large against small" in found._repr_html_()


def test_a_model_on_images_of_another_size_and_on_mirrored_ones(
    model_folder: Path, scenes: Path, tmp_path: Path
) -> None:
    """From the files to the refusal."""
    small = drawn.write(tmp_path / "small", train=3, val=2, test=2, size=(40, 56))
    plain = evaluate(model_folder, scenes, split="val")
    other = evaluate(model_folder, small, split="val")
    said = refused(plain, other).message
    assert "  image_size: original, 48 x 64 | original, 40 x 56" in said
    assert "street_0000, street_0001 (2 images) or their masks are others" in said
    mirrored = evaluate(model_folder, scenes, split="val", flip=True)
    error = refused(plain, mirrored)
    assert "  test_time_augmentation: none | flip" in error.message
    found = compare(plain, mirrored, varying=["test_time_augmentation"], resamples=100)
    assert found.differing_settings == {"test_time_augmentation": ["none", "flip"]}
    assert found.runs[0].metrics.mean_iou == plain.metrics.mean_iou
