"""`fullconv evaluate` and `compare`: reports, counts, and the names of published datasets."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import Cli
from evaluated import counted, matrices, written


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    monkeypatch.setattr("fullconv.cli.evaluate.REPORTS", Path("reports"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("named", ["", "model"])
def test_the_report_of_a_run_is_in_the_run(
    cli: Cli, place: Path, model_folder: Path, named: str, scenes: Path
) -> None:
    run = Path("my run")
    shutil.copytree(model_folder, place / run / "model")
    (place / run / "config.toml").touch()
    code, out, _ = cli("evaluate", run / named, scenes, "--split", "val")
    page = run / "report-val.html"
    assert code == 0
    assert f"\n\nreport: {page}\nnext: fullconv predict '{run / named}" in out
    text = page.read_text(encoding="utf-8")
    assert f"fullconv evaluate &#39;{run / named}&#39; {scenes} --split val</code>" in text
    assert (run / "report-val.md").is_file()


def test_the_report_of_another_model_is_in_reports(
    cli: Cli, model_folder: Path, scenes: Path
) -> None:
    code, out, _ = cli("evaluate", model_folder, scenes, "--json")
    facts = json.loads(out)
    page = Path(facts["report"])
    assert (code, page.parent, page.is_file()) == (0, Path("reports"), True)
    assert page.name.endswith("-test.html")
    assert set(facts["boundary"]) >= {"f1", "per_class_f1", "band_width", "band_iou"}
    assert set(facts["calibration"]) >= {"expected_error", "confidence", "accuracy"}
    assert set(facts["object_size"]) >= {"area_from", "accuracy", "objects"}


def test_the_path_of_the_report(cli: Cli, model_folder: Path, scenes: Path) -> None:
    words = ["evaluate", model_folder, scenes]
    code, out, _ = cli(*words, "--flip", "--report", "out/page.html")
    assert (code, "report: out/page.html\n" in out) == (0, True)
    assert "--split test --flip</code>" in Path("out/page.html").read_text(encoding="utf-8")
    shutil.rmtree("out")
    code, out, _ = cli(*words, "--report", "none")
    assert (code, "report" in out, os.listdir()) == (0, False, [])
    Path("full").touch()  # a file in the place of the folder: the numbers are printed anyway
    code, out, err = cli(*words, "--report", "full/page.html")
    assert (code, "report:" in out) == (1, False)
    assert out.startswith(f"{model_folder} on {scenes}, split test")
    assert "the report full/page.html could not be written: " in err
    assert err.endswith("--split test --report report.html\n")


def test_a_published_dataset_is_given_by_its_name(
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


def test_compare(cli: Cli, tmp_path: Path) -> None:
    shares = {"a": 0.6, "b": 0.7}
    runs = [written(tmp_path / n, counted(matrices(30, right=r))) for n, r in shares.items()]
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
