"""Every real set, from its folder to a trained model, through the command line alone: nothing is
written by hand but the fixes that `fullconv check` proposes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fullconv.cli.main import run

QUICK = "--backbone resnet10t --no-pretrained --stride 32 --epochs 1 --crop 65 65 --workers 0"
SETS = {  # name -> rules whose findings must be there at first, and must be gone in the end
    "camvid": (),
    "voc2012_sample": (),
    "cocostuff_sample": (),
    "ade20k_sample": (),
    "crackforest": ("black-and-white",),
    "isbi2012_em": (),
    "fasseg_face": ("unknown-color",),
    "kvasir_sample": ("lossy-mask",),
    "labelme_examples/semantic_segmentation/data_annotated": ("convert",),
    "labelme_examples/instance_segmentation/data_annotated": ("convert",),
    "labelme_examples/video_annotation/data_annotated": ("convert",),
}


@pytest.fixture
def fullconv(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; its exit code, and what it printed."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_trained_after_the_fixes_that_check_proposes(
    shared: Path, tmp_path: Path, fullconv: Any, name: str
) -> None:
    root, seen = tmp_path / "data", []
    root.mkdir()
    for entry in (shared / "data" / name).iterdir():  # the set itself stays as it is
        if name == "camvid" and entry.name in (
            "train.txt",
            "val.txt",
            "test.txt",
        ):  # every eighth will do
            lines = entry.read_text().splitlines()[::8]
            (root / entry.name).write_text("\n".join(lines))
        else:
            (root / entry.name).symlink_to(entry)
    for _ in range(4):
        code, out, err = fullconv("check", root, "--json")
        if code == 0:
            break
        root = mended(root, tmp_path / f"data_{len(seen)}", out, err, fullconv, seen)
    assert code == 0, out + err
    assert set(seen) >= set(SETS[name]), f"fixes: {seen}"
    assert not json.loads(out)["errors"]
    code, out, err = fullconv("inspect", root, "--json")
    assert code == 0, err
    code, out, err = fullconv("train", root, *QUICK.split(), "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["pixel_accuracy"] <= 1


def mended(root: Path, new: Path, out: str, err: str, fullconv: Any, seen: list[str]) -> Path:
    """Does what the first error's fix says, word for word; the folder that holds the result."""
    if not out:  # not a data set: the line to paste
        line = err.rpartition("try: ")[2].strip()
        seen.append("convert")
        return pasted(line, root, new, fullconv)
    finding = next(f for f in json.loads(out)["findings"] if f["level"] == "error")
    seen.append(finding["rule"])
    first, _, lines = finding["fix"].partition("\n")
    found = re.match(r"(write|add to) (\S+dataset\.toml) ", first)
    if found:
        with Path(found[2]).open("a") as file:
            file.write(lines + "\n")
        return root
    line = next(line for line in finding["fix"].splitlines() if "fullconv check" in line)
    return pasted(line[line.index("fullconv") :], root, new, fullconv)


def pasted(line: str, root: Path, new: Path, fullconv: Any) -> Path:
    """Runs a proposed line, with a folder of ours in place of OUT or of the one that it names."""
    words = shlex.split(line.partition("   #")[0])
    assert (words[0], str(root) in words[2]) == ("fullconv", True), line
    words[-1] = str(new)
    code, out, err = fullconv(*words[1:])
    assert code == 0, out + err
    return new


def test_the_folder_of_labelme_projects_is_refused_with_the_right_question(
    shared: Path, fullconv: Any
) -> None:
    code, out, err = fullconv("check", shared / "data/labelme_examples")
    assert code == 1
    assert not out
    assert "semantic_segmentation" in err
    assert "fullconv" in err.partition("try:")[2]
