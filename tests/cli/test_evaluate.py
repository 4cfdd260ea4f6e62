"""Where `fullconv evaluate` puts its report; what it prints is in test_cli."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import Cli
from evaluated import counted, matrices, written

from fullconv.cli.main import run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder, where the work goes on."""
    monkeypatch.setattr("fullconv.cli.evaluate.REPORTS", Path("reports"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def trained(place: Path, model_folder: Path) -> Path:
    """As much of a run as its folder tells."""
    shutil.copytree(model_folder, place / "my run/model")
    (place / "my run/config.toml").touch()
    return Path("my run")


@pytest.mark.parametrize("named", ["", "model"])
def test_a_runs_report_lies_in_the_run(
    trained: Path, named: str, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained / named
    assert run(["evaluate", str(model), str(scenes), "--split", "val"]) == 0
    page = trained / "report-val.html"
    assert f"\n\nreport: {page}\nnext: fullconv predict '{model}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert f"fullconv evaluate &#39;{model}&#39; {scenes} --split val</code>" in text
    assert (trained / "report-val.md").is_file()


def test_another_models_report_lies_in_reports(
    model_folder: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(model_folder), str(scenes), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    page = Path(found["report"])
    assert page.parent == Path("reports")
    assert page.name.endswith("-test.html")
    assert page.is_file()
    assert set(found["boundary"]) >= {"f1", "per_class_f1", "band_width", "band_iou"}
    assert set(found["calibration"]) >= {"expected_error", "confidence", "accuracy"}
    assert set(found["object_size"]) >= {"area_from", "accuracy", "objects"}


def test_where_one_wants_it_or_nowhere(
    model_folder: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(model_folder), str(scenes)]
    assert run([*words, "--flip", "--report", "out/page.html"]) == 0
    assert "report: out/page.html\n" in capsys.readouterr().out
    assert "--split test --flip</code>" in Path("out/page.html").read_text(encoding="utf-8")
    shutil.rmtree("out")
    assert run([*words, "--report", "none"]) == 0
    assert "report" not in capsys.readouterr().out
    assert os.listdir() == []


def test_what_is_no_page_is_refused_at_once(
    model_folder: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(model_folder), str(scenes), "--report", "my report.pdf"]
    assert run(words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: the report my report.pdf is no HTML file; expected auto, none or a name that ends "
        "in .html.\n  try: --report 'my report.html'\n"
    )


def test_the_numbers_are_printed_where_the_report_cannot_be_written(
    model_folder: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("full").touch()  # a file where a folder would be
    words = ["evaluate", str(model_folder), str(scenes), "--report", "full/page.html"]
    assert run(words) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{model_folder} on {scenes}, split test")
    assert "report:" not in out
    assert "the report full/page.html could not be written: " in err
    assert err.endswith("--split test --report report.html\n")


def test_a_published_dataset_goes_by_its_name(
    cli: Cli, model_folder: Path, scenes: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FULLCONV_DATA", str(place / "downloads"))
    folder = shutil.copytree(scenes, place / "downloads/camvid")  # as if downloaded
    for words in (["evaluate", model_folder, "--split", "val"], ["inspect"], ["ceiling"]):
        code, by_name, err = cli(*words, "camvid")
        assert code == 0, err
        assert by_name == cli(*words, folder)[1].replace(f" on {folder}, ", " on camvid, ")


def test_counts_for_compare(cli: Cli, model: Path, scenes: Path, tmp_path: Path) -> None:
    words = ["evaluate", model, scenes, "--split", "val"]
    assert cli(*words)[0] == 0
    assert not list(tmp_path.glob("*.npz"))  # the model belongs to no run
    (tmp_path / "config.toml").write_text("[train]\n")
    assert cli(*words)[0] == 0
    assert cli(*words, "--counts", tmp_path / "new/other.npz")[0] == 0
    files = [tmp_path / "counts_val.npz", tmp_path / "new/other.npz"]
    code, out, err = cli("compare", *files, "--resamples", 100)
    assert (code, err, out.startswith("split val: 2 images, 48 x 64")) == (0, "", True)
    files[0].unlink()
    files[0].mkdir()  # cannot be written: the numbers are printed anyway
    code, out, err = cli(*words)
    assert (code, "mean IoU" in out, str(files[0]) in err) == (0, True, True)
    assert cli(*words, "--counts", "counts")[2].endswith("try: --counts counts.npz\n")


def test_compare(cli: Cli, tmp_path: Path) -> None:
    runs = [
        written(tmp_path / name, counted(matrices(30, right=right)))
        for name, right in (("a", 0.6), ("b", 0.7))
    ]
    code, out, err = cli("compare", *runs, "--resamples", 200)
    assert (code, err, "\nb" in out) == (0, "", True)
    page = tmp_path / "page.html"
    code, out, err = cli("compare", *runs, "--resamples", 200, "--out", page, "--json")
    assert (code, err) == (0, f"written: {page}\n")
    assert json.loads(out)["differences"][0]["run"] == "b"
    assert "<table" in page.read_text(encoding="utf-8")
    for words, hint in (
        ([runs[0]], f"try: fullconv compare {runs[0]} RUN"),
        ([*runs, "--split", "test"], "try: fullconv evaluate"),
        ([*runs, "--allow-different", "trained_on, split"], "'split'"),
    ):
        code, out, err = cli("compare", *words)
        assert (code, out, hint in err) == (1, "", True), err
