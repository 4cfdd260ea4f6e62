"""Every real dataset, from its folder to a trained model: only the command line, and the fixes that
`fullconv check` proposes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fullconv.cli.main import run

QUICK = "--backbone test_resnet --no-pretrained --stride 32 --epochs 1 --crop 65 65 --workers 0"
SETS = {  # name -> fixes that the dataset needs
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
    """Return a function that runs a command line, and returns its exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_real_dataset_is_trained_after_the_proposed_fixes(
    shared: Path, tmp_path: Path, fullconv: Any, name: str
) -> None:
    root, fixes = tmp_path / "data", []
    root.mkdir()
    for entry in (shared / "data" / name).iterdir():  # the original does not change
        if name == "camvid" and entry.suffix == ".txt" and entry.stem in ("train", "val", "test"):
            lines = entry.read_text().splitlines()[::8]  # an eighth is enough
            (root / entry.name).write_text("\n".join(lines))
        else:
            (root / entry.name).symlink_to(entry)
    for _ in range(4):
        code, out, err = fullconv("check", root, "--json")
        if code == 0:
            break
        root = apply_fix(root, tmp_path / f"data_{len(fixes)}", out, err, fullconv, fixes)
    assert code == 0, out + err
    assert set(fixes) >= set(SETS[name]), fixes
    assert not json.loads(out)["errors"]
    code, out, err = fullconv("inspect", root, "--json")
    assert code == 0, err
    code, out, err = fullconv("train", root, *QUICK.split(), "--out", tmp_path / "run", "--json")
    assert code == 0, err
    assert 0 <= json.loads(out)["pixel_accuracy"] <= 1


def apply_fix(root: Path, new: Path, out: str, err: str, fullconv: Any, fixes: list[str]) -> Path:
    """Follow the fix of the first error word for word, and return the folder with the result."""
    if not out:  # not a dataset: the command to paste
        line = err.rpartition("try: ")[2].strip()
        fixes.append("convert")
        return paste(line, root, new, fullconv)
    finding = next(f for f in json.loads(out)["findings"] if f["level"] == "error")
    fixes.append(finding["rule"])
    first, _, lines = finding["fix"].partition("\n")
    target = re.match(r"(write|add to) (\S+dataset\.toml) ", first)
    if target:
        with Path(target[2]).open("a") as file:
            file.write(lines + "\n")
        return root
    line = next(line for line in finding["fix"].splitlines() if "fullconv check" in line)
    return paste(line[line.index("fullconv") :], root, new, fullconv)


def paste(line: str, root: Path, new: Path, fullconv: Any) -> Path:
    """Run a proposed command, with a new folder instead of the one that it names."""
    words = shlex.split(line.partition("   #")[0])
    assert (words[0], str(root) in words[2]) == ("fullconv", True), line
    words[-1] = str(new)
    code, out, err = fullconv(*words[1:])
    assert code == 0, out + err
    return new


def test_a_folder_of_several_labelme_projects_is_refused(shared: Path, fullconv: Any) -> None:
    code, out, err = fullconv("check", shared / "data/labelme_examples")
    assert code == 1
    assert not out
    assert "semantic_segmentation" in err
    assert "fullconv" in err.partition("try:")[2]
