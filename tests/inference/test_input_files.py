"""Named images: files, folders, patterns and lists, and the stems of their results."""

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


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """photos/ with images on three levels and a hidden one, in the current folder."""
    photos = ("b.jpg", "a.PNG", "x/a.jpg", "x/y/c.tif", "x/notes.txt", ".hidden/d.jpg")
    touch(tmp_path / "photos", *photos)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(*words: str) -> list[tuple[str, str]]:
    return [(p.as_posix(), s.as_posix()) for p, s in find_inputs([*map(Path, words)], [])]


def listing(text: str | bytes, path: str = "list.txt") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text.encode() if isinstance(text, str) else text)
    return f"@{path}"


def test_files_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.JPG", "in/deep/er/a.png", "in/notes.txt", "in/c.d.tiff", "one.webp")
    touch(tmp_path, "in/.b.png", "in/._a.png", "in/.cache/c.png", "in/folder.png/notes.txt")
    images = [
        (tmp_path / "in/b.JPG", Path("b")),
        (tmp_path / "in/c.d.tiff", Path("c.d")),
        (tmp_path / "in/deep/er/a.png", Path("deep/er/a")),
        (tmp_path / "one.webp", Path("one")),
    ]
    words = [tmp_path / "in", tmp_path / "one.webp"]
    assert list(find_images(words)) == images
    assert find_inputs([*words, tmp_path / "in/b.JPG"], []) == images  # nothing twice


def test_images_of_the_same_stem_get_different_names(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "x/a.png", "x/in/a.jpg", "x/in/a.png", "y/a.jpg", "y/a.png")
    touch(tmp_path, "z/a.png", "z/a_png.png")
    images = find_images([tmp_path / "x", tmp_path / "y", tmp_path / "z"])
    names = [name.as_posix() for _, name in images]
    assert names == ["a", "a_png", "in/a", "in/a_png", "a_jpg", "a_png_2", "a_png_3", "a_png_png"]


@pytest.mark.parametrize(
    ("pattern", "images"),
    [
        ("photos/*.jpg", [("photos/b.jpg", "b")]),
        ("photos/*", [("photos/a.PNG", "a"), ("photos/b.jpg", "b")]),
        ("photos/**/*.jpg", [("photos/b.jpg", "b"), ("photos/x/a.jpg", "x/a")]),
        ("photos/x/**", [("photos/x/a.jpg", "a"), ("photos/x/y/c.tif", "y/c")]),
        ("*/[xz]/?.jpg", [("photos/x/a.jpg", "photos/x/a")]),
    ],
)
def test_stems_are_relative_to_the_fixed_part_of_a_pattern(
    tree: Path, pattern: str, images: list[tuple[str, str]]
) -> None:
    assert find(pattern) == images
    if not pattern.startswith("*"):
        assert find(str(tree / pattern)) == [(str(tree / path), stem) for path, stem in images]


def test_a_file_whose_name_looks_like_a_pattern_or_a_list(tree: Path) -> None:
    for name in ("a[1].jpg", "@b.jpg"):
        (tree / name).touch()
        assert find(name) == [(name, name.removesuffix(".jpg"))]


def test_paths_of_a_list_are_relative_to_its_folder(tree: Path) -> None:
    far = tree / "far" / "b.jpg"
    text = f"\ufeff# May\r\nx/a.jpg\r\n\r\n  b.jpg \n#b.jpg\ngone.jpg\nx/../x/y/c.tif\n{far}"
    assert find(listing(text, "photos/list.txt")) == [
        ("photos/x/a.jpg", "x/a"),
        ("photos/b.jpg", "b"),
        ("photos/gone.jpg", "gone"),  # reading it reports the error
        ("photos/x/../x/y/c.tif", "x/y/c"),
        (str(far), far.relative_to("/").with_suffix("").as_posix()),
    ]


def test_a_folder_in_a_list_counts_with_its_subfolders_and_nothing_twice(tree: Path) -> None:
    """As `find photos` prints it: with the folders."""
    word = listing("photos\nphotos/b.jpg\nphotos/x\nphotos/x/a.jpg\n")
    paths = [path for path, _ in find(word, "photos", "photos/**/*.jpg")]
    assert paths == [f"photos/{name}" for name in ("a.PNG", "b.jpg", "x/a.jpg", "x/y/c.tif")]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_not_utf_8(tree: Path) -> None:
    path = Path(os.fsdecode(b"photos/f\xfc.jpg"))
    path.touch()
    assert find_inputs([Path(listing(b"photos/f\xfc.jpg\n"))], [])[0][0] == path


def test_results_of_earlier_runs_are_skipped_by_the_mark_inside(tree: Path) -> None:
    image = written(tree / "new" / "a.png", photo())
    own = written(tree / "new" / "b_mask.png", photo())  # a photo with such a name
    touch(tree / "new", "empty_mask.png")
    segmentation = Segmentation(photo()[..., 0] // 200, Labels(("sky", "road")), photo())
    kinds = ["color", "mask", "overlay", "json"]
    color, mask, overlay, _ = save_outputs(segmentation, tree / "new" / "a", kinds)
    listed = listing("".join(f"new/a{end}\n" for end in (".png", "_mask.png", "_color.png")))
    words = {"new": [color, mask, overlay], "new/*.png": [color, mask], listed: [color, mask]}
    for word, results in words.items():
        skipped: list[Path] = []
        paths = [path.resolve() for path, _ in find_inputs([Path(word)], skipped)]
        expected = [image] if word == listed else [image, own]
        assert [path for path in paths if not path.name.startswith("empty")] == expected
        assert sorted(path.resolve() for path in skipped) == results
    assert find(str(mask)) == [(mask.as_posix(), "a_mask")]  # a named file is always taken
    with pytest.raises(FullconvError, match=r"new/a_m\*\.png has only results of earlier runs"):
        find("new/a_m*.png")
    renamed = color.rename(tree / "new" / "c.png")
    assert renamed in [path for path, _ in find_images([tree / "new"])]


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("photos/*.gif", "no image in photos/*.gif; looked for .apng, .avif, ", "ls photos"),
        ("gone/**/*.jpg", "no image in gone/**/*.jpg", "ls gone"),
        ("@gone.txt", "the list gone.txt cannot be read: No such file", "MODEL @list.txt"),
        ("@photos/b.jpg", "photos/b.jpg names no image; expected one path per line", "predict MO"),
        ("@wide.txt", "wide.txt is not a list of paths: it contains zero bytes", "find photos"),
        ("gone.jpg", "no image or folder gone.jpg: it does not exist", "MODEL photo.jpg"),
        ("empty", "no image in empty; looked for .apng, .avif, ", "MODEL photo.jpg"),
    ],
)
def test_words_that_name_no_image(tree: Path, word: str, message: str, hint: str) -> None:
    Path("wide.txt").write_text("photos/b.jpg", encoding="utf-16")
    Path("empty").mkdir()
    with pytest.raises(FullconvError) as caught:
        find(word)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_dash_reads_standard_input(
    tree: Path,
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written(tree / "in" / "deep" / "a.png", photo())
    text = io.TextIOWrapper(io.BytesIO(b"in/deep/a.png\nin/gone.png\n"))
    monkeypatch.setattr(sys, "stdin", text)
    assert run(["predict", str(model_folder), "-", "--out", "out", "--save", "mask"]) == 1
    printed = capsys.readouterr()
    assert printed.out.endswith("1 of 2 images -> out\n")
    assert "no image in/gone.png" in printed.err
    assert Path("out/in/deep/a_mask.png").is_file()
