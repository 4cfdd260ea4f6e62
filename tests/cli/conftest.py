"""Fixtures of the command line: running it, and what its arguments name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import Cli, TrainRecorder

from fullconv.cli.main import run


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a command, and return exit code, stdout and stderr (of the file descriptors)."""

    def call(*words: Any) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(word) for word in words])
        return code, *capfd.readouterr()

    return call


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic scenes that may be changed."""
    return Path(shutil.copytree(scenes, tmp_path / "data"))


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model that may be changed."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> TrainRecorder:
    recorder = TrainRecorder()
    monkeypatch.setitem(sys.modules, "fullconv.training.train", recorder)  # type: ignore[arg-type]
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return recorder
