"""`fullconv compare`: what goes where, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluated import counted, matrices, written

from fullconv.cli.main import run


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [
        str(written(tmp_path / name, counted(matrices(30, right=r))))
        for name, r in (("a", 0.6), ("b", 0.7))
    ]


def test_text_page_and_json(
    words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *words, "--resamples", "200"]) == 0
    out, err = capfd.readouterr()
    assert "b against a" in out
    assert err == ""
    page = tmp_path / "page.html"
    assert run(["compare", *words, "--resamples", "200", "--out", str(page), "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["differences"][0]["run"] == "b"
    assert err == f"written: {page}\n"
    assert "b against a" in page.read_text(encoding="utf-8")


def test_mistakes_end_with_one_and_a_line_to_paste(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", words[0]]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "error: 1 run was named; a comparison needs two or more.\n"
        f"  try: fullconv compare {words[0]} RUN\n"
    )
    assert run(["compare", *words, "--split", "test"]) == 1
    assert "try: fullconv evaluate" in capfd.readouterr().err
    assert run(["compare", *words, "--allow-different", "trained_on, split"]) == 1
    assert "the line 'split'" in capfd.readouterr().err
