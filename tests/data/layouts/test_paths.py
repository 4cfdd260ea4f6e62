from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pairs import write_pairs

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.data.layouts.paths import (
    repair_command,
    require_new,
    unused_path,
    where_to_paste,
    whole_or_nothing,
)


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dataset in a read-only folder; the working directory is elsewhere."""
    root = tmp_path / "locked" / "my data"
    root.mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (root, root.parent):
        folder.chmod(0o555)
    yield root
    for folder in (root.parent, root):
        folder.chmod(0o755)


def test_an_unused_path_next_to_the_dataset(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    assert unused_path(root, "_fixed") == tmp_path / "data_fixed"
    (tmp_path / "data_fixed").mkdir()
    (tmp_path / "data_fixed_2").touch()
    assert unused_path(root, "_fixed") == tmp_path / "data_fixed_3"
    assert repair_command(root) == f"fullconv check {root} --fix {tmp_path / 'data_fixed_3'}"


def test_a_relative_dataset_gets_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "work" / "inside").mkdir(parents=True)
    (tmp_path / "work" / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    assert repair_command(Path("data")) == "fullconv check data --fix data_fixed"
    monkeypatch.chdir(tmp_path / "work")
    assert repair_command(Path("../data")) == "fullconv check ../data --fix ../data_fixed"
    assert unused_path(Path("link"), "_fixed") == tmp_path / "data_fixed"
    assert unused_path(Path(), "_fixed") == tmp_path / "work_fixed"
    monkeypatch.chdir("inside")
    assert unused_path(Path(".."), "_fixed") == tmp_path / "work_fixed"


def test_the_working_directory_if_the_parent_is_read_only(locked: Path) -> None:
    assert unused_path(locked, "_fixed") == Path("my data_fixed")
    Path("my data_fixed").mkdir()
    assert repair_command(locked) == f"fullconv check '{locked}' --fix 'my data_fixed_2'"


def test_the_home_directory_if_the_working_directory_is_inside_the_dataset(
    locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(locked)
    assert unused_path(Path(), "_fixed") == Path.home() / "my data_fixed"


def test_where_to_paste_lines(tmp_path: Path) -> None:
    assert where_to_paste(tmp_path) == f"write {tmp_path / 'dataset.toml'}"
    (tmp_path / "dataset.toml").touch()
    assert where_to_paste(tmp_path) == f"add to {tmp_path / 'dataset.toml'}"
    whole = where_to_paste(tmp_path, whole=True)
    assert whole == f"write {tmp_path / 'dataset.toml'}, replacing its content"


def test_where_to_paste_lines_for_a_read_only_dataset(locked: Path) -> None:
    line = where_to_paste(locked)
    first, _, rest = line.partition(" (")
    assert first == f"{locked} is read-only: copy it"
    copying, _, last = rest.partition(") and ")
    assert last == f"write {Path('my data_copy/dataset.toml')}"
    subprocess.run(["sh", "-c", copying], check=True)
    Path("my data_copy/dataset.toml").write_text("")
    assert Path("my data_copy/a.txt").read_text() == "a"
    assert os.stat("my data_copy").st_mode & 0o200
    assert shlex.split(copying)[:2] == ["cp", "-r"]


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    root, full, empty = tmp_path / "data", tmp_path / "full", tmp_path / "empty"
    for folder in (root, full, empty):
        folder.mkdir()
    (full / "mine.txt").touch()
    for out in (tmp_path / "new", empty):
        require_new(out, root, "the copy", "a hint")
    for out, message in (
        (full, f"{full} is not empty; expected a new folder for the copy."),
        (full / "mine.txt", f"{full / 'mine.txt'} is a file; expected a new folder"),
        (root / "x", f"{root / 'x'} is inside {root}, which must not change."),
    ):
        with pytest.raises(FullconvError) as caught:
            require_new(out, root, "the copy", "a hint")
        assert caught.value.message.startswith(message)
        assert caught.value.hint == "a hint"


def test_the_commands_for_a_read_only_dataset_work(
    locked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locked.chmod(0o755)
    write_pairs(locked, {f"{k}": 255 * np.eye(40, 50, k) for k in range(4)})
    locked.chmod(0o555)
    before = {path: path.read_bytes() for path in locked.rglob("*") if path.is_file()}
    assert run(["check", str(locked)]) == 1
    out = capsys.readouterr().out
    assert f"fix: {locked} is read-only: copy it (cp -r '{locked}' 'my data_copy' && " in out
    assert run(["check", str(locked), "--fix", "."]) == 0  # the working directory is empty
    assert run(["check", str(locked), "--fix", "."]) == 1
    hint = capsys.readouterr().err.rpartition("  try: ")[2].strip()
    assert hint == f"fullconv check '{locked}' --fix 'my data_fixed'"
    assert run(shlex.split(hint)[1:]) == 0
    assert run(["check", "my data_fixed"]) == 0
    assert before == {path: path.read_bytes() for path in locked.rglob("*") if path.is_file()}


@pytest.mark.parametrize("is_new", [True, False])
def test_a_copy_that_fails_leaves_nothing(tmp_path: Path, is_new: bool) -> None:
    out = tmp_path / "out"
    if not is_new:
        out.mkdir()

    def write(error: type[BaseException]) -> None:
        with whole_or_nothing(out):
            (out / "images/train").mkdir(parents=True)
            raise error

    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt)
    assert list(tmp_path.rglob("*")) == ([] if is_new else [out])
    with whole_or_nothing(out):
        (out / "images").mkdir(parents=True)
    assert (out / "images").is_dir()
