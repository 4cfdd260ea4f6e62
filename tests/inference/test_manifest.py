"""The manifest: what is done is not done again, and nothing else counts as done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullconv.core.errors import UnwrittenError
from fullconv.inference.manifest import FOLDER, Manifest, file_stamp, job_hash

STEM = Path("deep/a")
RESULT = {"source": "a.png", "area": {"sky": 1.0}, "files": ["in the staging folder"]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"image")
    return tmp_path / "a.png"


def finish(
    out: Path, image: Path, job: str = "one", content: bytes = b"mask", rank: int = 0
) -> Path:
    """Write, record and move a result, as a run does."""
    staged, path = out / "staged_mask.png", out / "deep" / "a_mask.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    staged.write_bytes(content)
    manifest = Manifest(out, job, [STEM], rank=rank)
    manifest.add(STEM, [file_stamp(image)], ["mask"], {staged: path}, RESULT)
    manifest.close()
    os.replace(staged, path)
    return path


def result(out: Path, image: Path, job: str = "one", kinds: tuple[str, ...] = ("mask",)) -> Any:
    return Manifest(out, job, [STEM]).result(STEM, [file_stamp(image)], kinds)


def touch_later(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def test_results_and_files_are_recorded_relative_to_the_folder(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out"
    assert result(out, image) is None
    path = str(finish(out, image))
    assert result(out, image) == {"source": "a.png", "area": {"sky": 1.0}, "files": [path]}
    out.rename(tmp_path / "moved")
    assert result(tmp_path / "moved", image)["files"] == [path.replace("out", "moved")]


@pytest.mark.parametrize(
    "change",
    [
        lambda image, mask: image.write_bytes(b"another image"),
        lambda image, mask: touch_later(image),
        lambda image, mask: image.unlink(),
        lambda image, mask: mask.unlink(),
        lambda image, mask: mask.write_bytes(b"mas"),
        lambda image, mask: touch_later(mask),
    ],
)
def test_a_changed_image_or_result_is_not_done(tmp_path: Path, image: Path, change: Any) -> None:
    mask = finish(tmp_path / "out", image)
    assert result(tmp_path / "out", image)
    change(image, mask)
    assert result(tmp_path / "out", image) is None


def test_an_image_of_the_same_name_in_another_folder_is_not_done(
    tmp_path: Path, image: Path
) -> None:
    finish(tmp_path / "out", image)
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    shutil.copy2(image, other)
    assert result(tmp_path / "out", other) is None


def test_another_model_or_another_output_type_is_not_done(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out"
    finish(out, image)
    assert result(out, image, kinds=("mask", "overlay")) is None
    assert result(out, image, kinds=())
    assert result(out, image, job="two") is None
    others = [("one", STEM, 0), ("two", STEM, 1), ("two", Path("b"), 0)]
    assert [Manifest(out, job, [stem]).others for job, stem, _ in others] == [0, 1, 0]
    finish(out, image, job="two", rank=1)
    assert result(out, image, job="two")
    assert result(out, image, job="one") is None  # the files are those of the other model


def test_rows_with_the_former_key_count_as_results(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out"
    finish(out, image)
    (path,) = (out / FOLDER).glob("*.jsonl")
    path.write_text(path.read_text().replace('"image":', '"picture":'))
    assert result(out, image)
    assert Manifest(out, "two", [STEM]).others == 1


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (1, 1)])
def test_a_repeated_image_is_done_whichever_process_repeated_it(
    tmp_path: Path, image: Path, ranks: tuple[int, int]
) -> None:
    finish(tmp_path, image, rank=ranks[0])
    finish(tmp_path, image, content=b"another mask", rank=ranks[1])
    assert result(tmp_path, image)


def test_a_line_without_its_files_is_not_done(tmp_path: Path, image: Path) -> None:
    """A kill between record and move: without and with an older result of the same size."""
    out = tmp_path / "out"
    staged, path = tmp_path / "staged", out / "deep" / "a_mask.png"
    staged.write_bytes(b"mask")
    manifest = Manifest(out, "one", [STEM])
    manifest.add(STEM, [file_stamp(image)], ["mask"], {staged: path}, RESULT)
    manifest.close()
    assert result(out, image) is None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"ksam")
    os.utime(path, ns=(0, 0))
    assert result(out, image) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_a_manifest_that_was_cut_anywhere_is_continued(
    tmp_path: Path, image: Path, cut: int
) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    path = out / FOLDER / "0.jsonl"
    finish(out, image)
    path.write_bytes(path.read_bytes()[: max(0, path.stat().st_size - 1 - cut)])
    remains = path.read_bytes()
    assert (result(out, image) is None) == (cut > 0)
    finish(out, image)
    assert result(out, image)
    assert path.read_bytes().startswith(remains + b"\n")


def test_foreign_lines_are_ignored_and_own_lines_are_json(tmp_path: Path, image: Path) -> None:
    finish(tmp_path, image)
    (row,) = (tmp_path / FOLDER / "0.jsonl").read_text().split("\n")[1:-1]
    assert json.loads(row)["files"][0][:2] == ["deep/a_mask.png", 4]
    assert "files" not in json.loads(row)["result"]
    foreign = '7\n[]\n"a"\n{}\n{"image": 3}\nnull\n\xff\n\n'
    (tmp_path / FOLDER / "1.jsonl").write_text(foreign)
    assert result(tmp_path, image)


def test_a_job_is_the_content_of_the_model_and_the_options(
    tmp_path: Path, model_folder: Path
) -> None:
    options = {"tile": None}
    job = job_hash(model_folder, options)
    assert job == job_hash(model_folder, {"tile": None}) != job_hash(model_folder, {"tile": 32})
    copy = shutil.copytree(model_folder, tmp_path / "run" / "model")
    assert job_hash(copy, options) == job_hash(copy.parent, options) == job
    weights = next(copy.glob("*.safetensors"))
    weights_job = job_hash(weights, options)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert job_hash(copy, options) != job
    assert job_hash(weights, options) != weights_job
    names = [Path(f"torchvision:fcn_resnet{depth}") for depth in (50, 101)]
    assert len({job_hash(name, options) for name in names}) == 2
    # The weights of an OpenVINO model are in a file of their own.
    (tmp_path / "net.xml").write_text("graph")
    jobs = set()
    for content in (b"1", b"2"):
        (tmp_path / "net.bin").write_bytes(content)
        jobs |= {job_hash(tmp_path / "net.xml", {}), job_hash(tmp_path, {})}
    assert len(jobs) == 4


def test_a_manifest_that_cannot_be_written(tmp_path: Path, image: Path) -> None:
    (tmp_path / "file").touch()
    manifest = Manifest(tmp_path / "file", "one", [STEM])
    with pytest.raises(UnwrittenError) as caught:
        manifest.add(STEM, [file_stamp(image)], ["mask"], {}, RESULT)
    path = tmp_path / "file" / FOLDER / "0.jsonl"
    assert f"the manifest could not be written to {path}: " in caught.value.message
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")
