"""Models on a hub by name, against a stand-in that speaks HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hub as stand_in
import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import fullconv as fc
from fullconv.cli.main import run
from fullconv.core.errors import DownloadError, FullconvError
from fullconv.models.hub import HubName, is_hub_name, parse_hub_name, resolve_hub_name
from fullconv.models.model import Model, save_model
from fullconv.models.open import open_model

NAME = "hf://someone/streets"
MakeModel = Callable[..., Model]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def there(hub: stand_in.Hub, model_folder: Path) -> stand_in.Hub:
    """A hub with a model, and other files in its folder."""
    others = {"checkpoint/last.ckpt": b"\x80\x02pickle", "pytorch_model.bin": b"PK"}
    hub.add("someone/streets", {**files_of(model_folder), **others})
    return hub


def refused(name: str | Path) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        open_model(name)
    return caught.value


def random_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (41, 67, 3), np.uint8)


def test_a_model_is_downloaded_once_without_other_files(
    there: stand_in.Hub, model_folder: Path, make_model: MakeModel, tmp_path: Path
) -> None:
    names = ["config.json", "model.safetensors"]
    folder = resolve_hub_name(NAME)
    assert sorted(set(there.fetched())) == names
    assert sorted(path.name for path in folder.iterdir()) == names
    there.requests.clear()
    assert resolve_hub_name(NAME) == folder
    assert there.fetched() == []
    expected = fc.load(model_folder, device="cpu")(random_image()).mask
    for name in (NAME, Path(NAME), f"{NAME}@main"):
        assert np.array_equal(fc.load(name, device="cpu")(random_image()).mask, expected)
    # A changed model is downloaded again.
    changed = save_model(make_model(("one", "two")), tmp_path / "model")
    there.repos["someone/streets"].add(files_of(changed))
    assert open_model(NAME).labels.names == ("one", "two")
    assert sorted(set(there.fetched())) == names


def test_branches_and_commits_are_revisions(
    there: stand_in.Hub, make_model: MakeModel, tmp_path: Path
) -> None:
    repo = there.repos["someone/streets"]
    before = repo.branches["main"]
    other = save_model(make_model(("one", "two")), tmp_path / "model")
    repo.add(files_of(other), "small/v2")
    assert open_model(f"{NAME}@small/v2").labels.names == ("one", "two")
    assert open_model(NAME).labels.names == open_model(f"{NAME}@{before}").labels.names
    assert len(open_model(NAME).labels) > 2


def test_without_network_the_cache_is_enough(
    there: stand_in.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve_hub_name(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    assert resolve_hub_name(NAME) == folder
    error = refused("hf://someone/else")
    assert isinstance(error, DownloadError)
    assert error.message == (
        "hf://someone/else is not reachable: there is no network, or http://127.0.0.1:9 does not "
        "answer."
    )
    assert error.hint == "fullconv inspect hf://someone/else   # again, with a network"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve_hub_name(NAME) == folder
    there.requests.clear()
    error = refused("hf://someone/else")
    assert "is not in the cache, and HF_HUB_OFFLINE forbids network access" in error.message
    assert error.hint == "HF_HUB_OFFLINE=0 fullconv inspect hf://someone/else"
    assert there.requests == []


def test_missing_and_private_models_look_the_same(
    there: stand_in.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.repos["someone/streets"].private = True
    for name in ("someone/streets", "someone/nothing"):
        error = refused(f"hf://{name}")
        assert error.message == (
            f"{there.address} has no model {name}, or it is private: this machine has no access "
            "token."
        )
        assert error.hint.startswith("hf auth login")
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    assert open_model(NAME).labels
    assert "the access token of this machine may lack permission" in refused("hf://a/b").message


def test_other_refusals(there: stand_in.Hub) -> None:
    error = refused(f"{NAME}@v3")
    assert error.message == "someone/streets has no branch, tag or commit 'v3'."
    assert error.hint == f"fullconv inspect {NAME}"
    there.repos["someone/streets"].gated = True
    error = refused(NAME)
    assert f"the terms of {NAME} must be accepted before it is downloaded" in error.message
    assert f"accept the terms at {there.address}/someone/streets" in error.hint
    there.broken = 503
    error = refused(NAME)
    assert isinstance(error, DownloadError)
    assert there.address in error.message
    assert f"fullconv inspect {NAME}" in error.hint


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"large"},
        {"pytorch_model.bin": b"x"},
        {"config.json": b"{"},
        {"config.json": b"[]"},
    ],
)
def test_other_models_are_refused_before_their_weights_are_downloaded(
    hub: stand_in.Hub, files: dict[str, bytes]
) -> None:
    hub.add("someone/other", files)
    error = refused("hf://someone/other")
    assert error.message == (
        "hf://someone/other is not a fullconv model; expected config.json and model.safetensors "
        "as `fullconv push` uploads them."
    )
    assert "model.safetensors" not in hub.fetched()


def test_a_damaged_model(there: stand_in.Hub, model_folder: Path) -> None:
    weights = bytearray((model_folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    there.repos["someone/streets"].add({"model.safetensors": bytes(weights)})
    assert "was altered or does not belong to its config.json" in refused(NAME).message


@pytest.mark.parametrize("name", ["hf://streets", "hf://a/b/c", "hf://a/b c", "hf://a/..", "hf://"])
def test_invalid_names(name: str) -> None:
    assert is_hub_name(name)
    message = "is not the name of a model on the hub; expected hf://USER"
    with pytest.raises(FullconvError, match=message):
        parse_hub_name(name)


def test_names() -> None:
    assert parse_hub_name("a/b") == HubName("a/b")
    assert str(parse_hub_name("hf:/a_1/b-2.c@refs/pr/1")) == "hf://a_1/b-2.c@refs/pr/1"
    assert is_hub_name(Path(NAME))
    assert not is_hub_name("runs/hf")
    assert resolve_hub_name("runs/hf") == Path("runs/hf")


@pytest.mark.slow
def test_commands_take_models_of_the_hub(
    there: stand_in.Hub, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    photo = next((scenes / "images/test").iterdir())
    assert run(["predict", NAME, str(photo), *out]) == 0
    assert (tmp_path / "out" / f"{photo.stem}_mask.png").is_file()
    assert run(["predict", NAME, str(photo), *out, "--json"]) == 0  # done already
    assert run(["inspect", NAME]) == 0
    assert run(["evaluate", NAME, str(scenes)]) == 0
    printed = capsys.readouterr().out
    assert f"next: fullconv predict {NAME} IMAGES" in printed
    assert f"{NAME} on {scenes}, split test" in printed
    assert "hf:/someone" not in printed
    assert run(["predict", "hf://someone/nothing", str(photo), *out]) == 1
    assert "has no model someone/nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_another_process_uses_the_cache_offline(
    there: stand_in.Hub, tmp_path: Path, model_folder: Path
) -> None:
    Image.fromarray(random_image()).save(tmp_path / "a.png")
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": there.address}
    expected = fc.load(model_folder, device="cpu")(random_image()).mask
    for folder, offline in (("one", {}), ("two", {"HF_HUB_OFFLINE": "1"})):
        there.requests.clear()
        words = ["predict", NAME, str(tmp_path / "a.png"), "--out", str(tmp_path / folder)]
        command = [sys.executable, "-m", "fullconv", *words]
        process = subprocess.run(
            command, env={**env, **offline}, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stderr
        assert bool(there.requests) == (folder == "one")
        assert np.array_equal(np.asarray(Image.open(tmp_path / folder / "a_mask.png")), expected)
