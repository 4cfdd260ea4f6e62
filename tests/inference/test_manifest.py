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
from fullconv.inference.manifest import FOLDER, Finished, job_of, seen

STEM = Path("deep/a")
RESULT = {"source": "a.png", "area": {"sky": 1.0}, "files": ["of the part folder"]}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(b"picture")
    return tmp_path / "a.png"


def finish(
    out: Path, picture: Path, job: str = "one", content: bytes = b"mask", rank: int = 0
) -> Path:
    """As a run does it: written elsewhere, recorded, moved."""
    part, to = out / "part_mask.png", out / "deep" / "a_mask.png"
    to.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    record = Finished(out, job, [STEM], rank=rank)
    record.add(STEM, [seen(picture)], ["mask"], {part: to}, RESULT)
    record.close()
    os.replace(part, to)
    return to


def found(out: Path, picture: Path, job: str = "one", kinds: tuple[str, ...] = ("mask",)) -> Any:
    return Finished(out, job, [STEM]).result(STEM, [seen(picture)], kinds)


def test_what_was_recorded_comes_back_with_the_files_as_the_folder_is_called_now(
    tmp_path: Path, picture: Path
) -> None:
    out = tmp_path / "out"
    assert found(out, picture) is None
    finish(out, picture)
    path = str(out / "deep" / "a_mask.png")
    assert found(out, picture) == {"source": "a.png", "area": {"sky": 1.0}, "files": [path]}
    out.rename(tmp_path / "moved")
    assert found(tmp_path / "moved", picture)["files"] == [path.replace("out", "moved")]


def touch_later(path: Path) -> None:
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize(
    "change",
    [
        lambda picture, result: picture.write_bytes(b"another picture"),
        lambda picture, result: touch_later(picture),
        lambda picture, result: picture.unlink(),
        lambda picture, result: result.unlink(),
        lambda picture, result: result.write_bytes(b"mas"),
        lambda picture, result: touch_later(result),
    ],
)
def test_a_change_of_the_picture_or_of_a_result_is_seen(
    tmp_path: Path, picture: Path, change: Any
) -> None:
    result = finish(tmp_path / "out", picture)
    assert found(tmp_path / "out", picture)
    change(picture, result)
    assert found(tmp_path / "out", picture) is None


def test_another_picture_of_the_same_name_is_another_one(tmp_path: Path, picture: Path) -> None:
    finish(tmp_path / "out", picture)
    other = tmp_path / "other" / "a.png"
    other.parent.mkdir()
    other.write_bytes(picture.read_bytes())
    times = picture.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found(tmp_path / "out", other) is None


def test_another_model_or_other_options_or_further_kinds_are_not_finished(
    tmp_path: Path, picture: Path
) -> None:
    out = tmp_path / "out"
    finish(out, picture)
    assert found(out, picture, kinds=("mask", "overlay")) is None
    assert found(out, picture, kinds=())
    assert found(out, picture, job="two") is None
    assert Finished(out, "one", [STEM]).others == 0
    assert Finished(out, "two", [STEM]).others == 1
    assert Finished(out, "two", [Path("b")]).others == 0
    finish(out, picture, job="two", rank=1)
    assert found(out, picture, job="two")
    assert found(out, picture, job="one") is None  # its files are those of the other one


@pytest.mark.parametrize("ranks", [(0, 1), (1, 0), (1, 1)])
def test_what_was_done_again_is_finished_whichever_process_did_it(
    tmp_path: Path, picture: Path, ranks: tuple[int, int]
) -> None:
    """The older line is no longer true, wherever it stands."""
    out = tmp_path / "out"
    finish(out, picture, rank=ranks[0])
    finish(out, picture, content=b"another mask", rank=ranks[1])
    assert found(out, picture)


def test_a_line_without_its_files_says_nothing(tmp_path: Path, picture: Path) -> None:
    """Killed between the record and the move, first over nothing, then over an older result of
    the same size."""
    out = tmp_path / "out"
    record = Finished(out, "one", [STEM])
    part, to = tmp_path / "part", out / "deep" / "a_mask.png"
    part.write_bytes(b"mask")
    record.add(STEM, [seen(picture)], ["mask"], {part: to}, RESULT)
    assert found(out, picture) is None
    to.parent.mkdir(parents=True)
    to.write_bytes(b"ksam")
    os.utime(to, ns=(0, 0))
    assert found(out, picture) is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_a_record_that_ends_anywhere_is_continued(tmp_path: Path, picture: Path, cut: int) -> None:
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    path = out / FOLDER / "0.jsonl"
    finish(out, picture)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - 1 - cut)])
    ended = path.read_bytes()
    assert (found(out, picture) is None) == (cut > 0)
    finish(out, picture)
    assert found(out, picture)
    assert path.read_bytes().startswith(ended + b"\n")


def test_lines_that_others_wrote_are_passed_over(tmp_path: Path, picture: Path) -> None:
    out = tmp_path / "out"
    finish(out, picture)
    (out / FOLDER / "1.jsonl").write_text('7\n[]\n"a"\n{}\n{"picture": 3}\nnull\n\xff\n\n')
    assert found(out, picture)


def test_what_a_job_is(tmp_path: Path, model_folder: Path) -> None:
    options = {"tile": None}
    word = job_of(model_folder, options)
    assert word == job_of(model_folder, {"tile": None})
    assert word != job_of(model_folder, {"tile": 32})
    other = tmp_path / "run" / "model"
    other.mkdir(parents=True)
    for path in model_folder.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    assert job_of(other, options) == job_of(other.parent, options) == word  # wherever it lies
    weights = next(other.glob("*.safetensors"))
    alone = job_of(weights, options)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert job_of(other, options) != word
    assert job_of(weights, options) != alone
    fcns = [Path(f"torchvision:fcn_resnet{depth}") for depth in (50, 101)]
    assert len({job_of(name, options) for name in fcns}) == 2


def test_of_an_openvino_file_the_weights_beside_it_count(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("graph")
    words = set()
    for weights in (b"1", b"2"):
        (tmp_path / "net.bin").write_bytes(weights)
        words |= {job_of(tmp_path / "net.xml", {}), job_of(tmp_path, {})}
    assert len(words) == 4


def test_a_record_that_cannot_be_written(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "file").touch()
    record = Finished(tmp_path / "file", "one", [STEM])
    with pytest.raises(UnwrittenError) as caught:
        record.add(STEM, [seen(picture)], ["mask"], {}, RESULT)
    said = f"the record could not be written to {tmp_path / 'file' / FOLDER / '0.jsonl'}: "
    assert caught.value.message.startswith(said)
    assert caught.value.hint.startswith("--out ANOTHER_FOLDER")


def test_a_line_is_json_and_names_nothing_of_the_part_folder(tmp_path: Path, picture: Path) -> None:
    finish(tmp_path, picture)
    lines = (tmp_path / FOLDER / "0.jsonl").read_text().split()
    row = json.loads(" ".join(lines))
    assert row["files"][0][:2] == ["deep/a_mask.png", 4]
    assert "files" not in row["result"]
