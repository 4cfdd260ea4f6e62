"""What is finished is not done twice, and nothing counts as finished that is not."""

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
RESULT = {"source": "a.png", "area": {"sky": 1.0}, "files": ["of the part folder"]}


@pytest.fixture
def random_image(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"image")
    return tmp_path / "a.png"


def finish(
    out: Path, image: Path, job: str = "one", content: bytes = b"mask", rank: int = 0
) -> Path:
    """As a run does it: written elsewhere, recorded, moved."""
    part, to = out / "part_mask.png", out / "deep" / "a_mask.png"
    to.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    record = Manifest(out, job, [STEM], rank=rank)
    record.add(STEM, [file_stamp(image)], ["mask"], {part: to}, RESULT)
    record.close()
    os.replace(part, to)
    return to


def found(out: Path, image: Path, job: str = "one", kinds: tuple[str, ...] = ("mask",)) -> Any:
    return Manifest(out, job, [STEM]).result(STEM, [file_stamp(image)], kinds)


def test_what_was_recorded_comes_back_with_the_files_as_the_folder_is_called_now(
    tmp_path: Path, image: Path
) -> None:
    out = tmp_path / "out"
    assert found(out, image) is None
    finish(out, image)
    path = str(out / "deep" / "a_mask.png")
    assert found(out, image) == {"source": "a.png", "area": {"sky": 1.0}, "files": [path]}
    out.rename(tmp_path / "moved")
    assert found(tmp_path / "moved", image)["files"] == [path.replace("out", "moved")]


def touch_later(path: Path) -> None:
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "change",
    [
        lambda image, result: image.write_bytes(b"another image"),
        lambda image, result: touch_later(image),
        lambda image, result: image.unlink(),
        lambda image, result: result.unlink(),
        lambda image, result: result.write_bytes(b"mas"),
        lambda image, result: touch_later(result),
    ],
)
def test_a_change_of_the_image_or_of_a_result_is_seen(
    tmp_path: Path, image: Path, change: Any
) -> None:
    result = finish(tmp_path / "out", image)
    assert found(tmp_path / "out", image)
    change(image, result)
    assert found(tmp_path / "out", image) is None


def test_another_image_of_the_same_name_is_another_one(tmp_path: Path, image: Path) -> None:
    finish(tmp_path / "out", image)
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    other.write_bytes(image.read_bytes())
    times = image.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found(tmp_path / "out", other) is None


def test_another_model_or_other_options_or_further_kinds_are_not_finished(
    tmp_path: Path, image: Path
) -> None:
    out = tmp_path / "out"
    finish(out, image)
    assert found(out, image, kinds=("mask", "overlay")) is None
    assert found(out, image, kinds=())
    assert found(out, image, job="two") is None
    assert Manifest(out, "one", [STEM]).others == 0
    assert Manifest(out, "two", [STEM]).others == 1
    assert Manifest(out, "two", [Path("b")]).others == 0
    finish(out, image, job="two", rank=1)
    assert found(out, image, job="two")
    assert found(out, image, job="one") is None  # its files are those of the other one


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (1, 1)])
def test_what_was_done_again_is_finished_whichever_process_did_it(
    tmp_path: Path, image: Path, ranks: tuple[int, int]
) -> None:
    """The older line is no longer true, wherever it stands."""
    out = tmp_path / "out"
    finish(out, image, rank=ranks[0])
    finish(out, image, content=b"another mask", rank=ranks[1])
    assert found(out, image)


def test_a_line_without_its_files_says_nothing(tmp_path: Path, image: Path) -> None:
    """Killed between the record and the move, first over nothing, then over an older result of
    the same size."""
    out = tmp_path / "out"
    record = Manifest(out, "one", [STEM])
    part, to = tmp_path / "part", out / "deep" / "a_mask.png"
    part.write_bytes(b"mask")
    record.add(STEM, [file_stamp(image)], ["mask"], {part: to}, RESULT)
    assert found(out, image) is None
    to.parent.mkdir(parents=True)
    to.write_bytes(b"ksam")
    os.utime(to, ns=(0, 0))
    assert found(out, image) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_a_record_that_ends_anywhere_is_continued(tmp_path: Path, image: Path, cut: int) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    path = out / FOLDER / "0.jsonl"
    finish(out, image)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - 1 - cut)])
    ended = path.read_bytes()
    assert (found(out, image) is None) == (cut > 0)
    finish(out, image)
    assert found(out, image)
    assert path.read_bytes().startswith(ended + b"\n")


def test_lines_that_others_wrote_are_passed_over(tmp_path: Path, image: Path) -> None:
    out = tmp_path / "out"
    finish(out, image)
    (out / FOLDER / "1.jsonl").write_text('7\n[]\n"a"\n{}\n{"image": 3}\nnull\n\xff\n\n')
    assert found(out, image)


def test_what_a_job_is(tmp_path: Path, model_folder: Path) -> None:
    options = {"tile": None}
    word = job_hash(model_folder, options)
    assert word == job_hash(model_folder, {"tile": None})
    assert word != job_hash(model_folder, {"tile": 32})
    other = tmp_path / "run" / "model"
    other.mkdir(parents=True)
    for path in model_folder.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    assert job_hash(other, options) == job_hash(other.parent, options) == word  # wherever it lies
    weights = next(other.glob("*.safetensors"))
    alone = job_hash(weights, options)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert job_hash(other, options) != word
    assert job_hash(weights, options) != alone
    fcns = [Path(f"torchvision:fcn_resnet{depth}") for depth in (50, 101)]
    assert len({job_hash(name, options) for name in fcns}) == 2


def test_of_an_openvino_file_the_weights_beside_it_count(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("graph")
    words = set()
    for weights in (b"1", b"2"):
        (tmp_path / "net.bin").write_bytes(weights)
        words |= {job_hash(tmp_path / "net.xml", {}), job_hash(tmp_path, {})}
    assert len(words) == 4


def test_a_record_that_cannot_be_written(tmp_path: Path, image: Path) -> None:
    (tmp_path / "file").touch()
    record = Manifest(tmp_path / "file", "one", [STEM])
    with pytest.raises(UnwrittenError) as caught:
        record.add(STEM, [file_stamp(image)], ["mask"], {}, RESULT)
    said = f"the record could not be written to {tmp_path / 'file' / FOLDER / '0.jsonl'}: "
    assert caught.value.message.startswith(said)
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")


def test_a_line_is_json_and_names_nothing_of_the_part_folder(tmp_path: Path, image: Path) -> None:
    finish(tmp_path, image)
    lines = (tmp_path / FOLDER / "0.jsonl").read_text().split()
    row = json.loads(" ".join(lines))
    assert row["files"][0][:2] == ["deep/a_mask.png", 4]
    assert "files" not in row["result"]
