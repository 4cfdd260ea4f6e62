"""What is named: files, folders, patterns and lists, and what their results are called."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from photos import photo, written

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels
from fullconv.inference.input_files import find_images, find_inputs
from fullconv.inference.segmentation import Segmentation
from fullconv.inference.writers import save_outputs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with images on three levels, and one that is hidden; the work goes on beside it."""
    for name in ("b.jpg", "a.PNG", "x/a.jpg", "x/y/c.tif", "x/notes.txt", ".hidden/d.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(*words: str) -> list[tuple[str, str]]:
    return [(p.as_posix(), s.as_posix()) for p, s in find_inputs([*map(Path, words)], [])]


def listing(text: str | bytes, path: str = "list.txt") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
    return f"@{path}"


def message(*words: str) -> str:
    with pytest.raises(FullconvError) as caught:
        named(*words)
    return str(caught.value)


def test_files_and_folders_are_as_they_were(tree: Path) -> None:
    words = [tree / "photos", Path("photos/x/a.jpg")]
    assert find_inputs(words, []) == list(find_images(words[:1]))
    assert named("photos/x/a.jpg", "photos/b.jpg") == [
        ("photos/x/a.jpg", "a"),
        ("photos/b.jpg", "b"),
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("photos/*.jpg", [("photos/b.jpg", "b")]),
        ("photos/*", [("photos/a.PNG", "a"), ("photos/b.jpg", "b")]),
        ("photos/**/*.jpg", [("photos/b.jpg", "b"), ("photos/x/a.jpg", "x/a")]),
        ("photos/x/**", [("photos/x/a.jpg", "a"), ("photos/x/y/c.tif", "y/c")]),
        ("*/[xz]/?.jpg", [("photos/x/a.jpg", "photos/x/a")]),
    ],
)
def test_a_pattern_mirrors_the_tree_below_its_fixed_beginning(
    tree: Path, pattern: str, found: list[tuple[str, str]]
) -> None:
    assert named(pattern) == found
    absolute = [(str(tree / path), stem) for path, stem in found]
    if not pattern.startswith("*"):
        assert named(str(tree / pattern)) == absolute


def test_a_file_whose_name_looks_like_a_pattern_or_a_list_is_a_file(tree: Path) -> None:
    for name in ("a[1].jpg", "@b.jpg"):
        (tree / name).touch()
        assert named(name) == [(name, name.removesuffix(".jpg"))]


def test_a_list_has_a_path_a_line_relative_to_its_own_folder(tree: Path) -> None:
    far = tree / "far" / "b.jpg"
    text = (
        f"\ufeff# taken in May\r\nx/a.jpg\r\n\r\n  b.jpg \n#b.jpg\ngone.jpg\nx/../x/y/c.tif\n{far}"
    )
    assert named(listing(text, "photos/list.txt")) == [
        ("photos/x/a.jpg", "x/a"),
        ("photos/b.jpg", "b"),
        ("photos/gone.jpg", "gone"),  # reading it will say so, at the end
        ("photos/x/../x/y/c.tif", "x/y/c"),
        (str(far), far.relative_to("/").with_suffix("").as_posix()),
    ]


def test_a_list_from_standard_input_is_relative_to_the_current_folder(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.TextIOWrapper(io.BytesIO(b"photos/x/a.jpg\nphotos/b.jpg\n"))
    monkeypatch.setattr(sys, "stdin", text)
    assert named("@-") == [("photos/x/a.jpg", "photos/x/a"), ("photos/b.jpg", "photos/b")]


def test_a_folder_in_a_list_is_taken_with_all_below_and_nothing_twice(tree: Path) -> None:
    """As `find photos` prints it: the folders too."""
    word = listing("photos\nphotos/b.jpg\nphotos/x\nphotos/x/a.jpg\n")
    assert [path for path, _ in named(word, "photos", "photos/**/*.jpg")] == [
        "photos/a.PNG",
        "photos/b.jpg",
        "photos/x/a.jpg",
        "photos/x/y/c.tif",
    ]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_utf_8_is_found(tree: Path) -> None:
    path = Path(os.fsdecode(b"photos/f\xfc.jpg"))
    path.touch()
    assert find_inputs([Path(listing(b"photos/f\xfc.jpg\n"))], [])[0][0] == path


def test_results_of_earlier_runs_are_left_out_of_patterns_and_lists(tree: Path) -> None:
    own = written(tree / "new" / "a.png", photo())
    labels = Labels(("sky", "road"))
    made = Segmentation(photo()[..., 0] // 200, labels, photo())
    (result,) = save_outputs(made, tree / "new" / "a", ["mask"])
    for word in ("new/*.png", listing("new/a.png\nnew/a_mask.png\n")):
        left_out: list[Path] = []
        assert [p.resolve() for p, _ in find_inputs([Path(word)], left_out)] == [own]
        assert [p.resolve() for p in left_out] == [result]
    assert message("new/*_mask.png").startswith(
        "no image fits new/*_mask.png but results of earlier runs; looked for .avif, .bmp, "
    )


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("photos/*.gif", "no image fits photos/*.gif; looked for .avif, .bmp, "),
        ("photos/*.gif", "\n  try: ls photos"),
        ("gone/**/*.jpg", "no image fits gone/**/*.jpg"),
        ("@gone.txt", "the list gone.txt cannot be read: No such file or directory."),
        ("@gone.txt", "\n  try: fullconv predict MODEL @list.txt   # a file with a path a line"),
        ("@photos/b.jpg", "photos/b.jpg names no image; expected a path a line."),
        ("@photos/b.jpg", "\n  try: find photos -name '*.jpg' | fullconv predict MODEL -"),
        ("@wide.txt", "wide.txt is no list: it holds zero bytes; expected text in UTF-8, a path"),
        ("@wide.txt", "\n  try: find photos -name '*.jpg' > list.txt"),
        ("gone.jpg", "no image or folder gone.jpg: there is nothing of that name."),
    ],
)
def test_what_names_no_image_is_refused(tree: Path, word: str, said: str) -> None:
    Path("wide.txt").write_text("photos/b.jpg", encoding="utf-16")
    assert said in message(word)


def test_a_dash_on_the_command_line_is_the_list_on_standard_input(
    tree: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written(tree / "in" / "deep" / "a.png", photo())
    text = io.TextIOWrapper(io.BytesIO(b"in/deep/a.png\nin/gone.png\n"))
    monkeypatch.setattr(sys, "stdin", text)
    assert run(["predict", str(model_folder), "-", "--out", "out", "--save", "mask"]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("1 of 2 images -> out\n")
    assert "1 of 2 images could not be labelled:\n  no image in/gone.png: there is no" in said.err
    assert Path("out/in/deep/a_mask.png").is_file()
