"""Push a model to a stand-in of the hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import hub as stand_in
import numpy as np
import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image

import fullconv as fc
from fullconv.core.errors import DownloadError, FullconvError
from fullconv.deploy.push import push

NAME = "someone/streets"
SENT = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture
def run(tmp_path: Path, model_folder: Path) -> Path:
    """A run with files that must not be sent."""
    folder = tmp_path / "run"
    shutil.copytree(model_folder, folder / "model")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/last.ckpt").write_bytes(b"pickle")
    (folder / "model/notes.txt").write_text("for me alone")
    (folder / "images").mkdir()
    for number in (1, 20, 3):
        Image.new("RGB", (number, 2)).save(folder / f"images/epoch_{number:04}.png")
    Image.new("RGB", (4, 4)).save(folder / "images/batches.png")
    return folder


@pytest.fixture
def account(hub: stand_in.Hub, monkeypatch: pytest.MonkeyPatch) -> stand_in.Hub:
    """A hub that knows this machine's token."""
    monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
    return hub


def on(hub: stand_in.Hub, name: str = NAME, branch: str = "main") -> dict[str, bytes]:
    """Return the files of a model on the hub."""
    repo = hub.repos[name]
    files = repo.commits[repo.branches[branch]]
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def refused(*words: object, **options: object) -> FullconvError:
    with pytest.raises(FullconvError) as caught:
        push(*words, **options)  # type: ignore[arg-type]
    return caught.value


def test_a_model_goes_there_and_comes_back(account: stand_in.Hub, run: Path) -> None:
    done = push(run, NAME)
    assert done.name == f"hf://{NAME}"
    assert done.address == f"{account.address}/{NAME}"
    assert account.repos[NAME].branches["main"] == done.commit
    assert sorted(on(account)) == sorted(done.files) == SENT
    for name in ("config.json", "model.safetensors"):
        assert on(account)[name] == (run / "model" / name).read_bytes()
    assert not account.repos[NAME].private
    image = np.random.default_rng(0).integers(0, 256, (41, 67, 3), np.uint8)
    back, here = (fc.load(name, device="cpu") for name in (done.name, run))
    assert np.array_equal(back(image).mask, here(image).mask)


def test_the_card_on_the_hub_names_the_model_on_the_hub(account: stand_in.Hub, run: Path) -> None:
    push(run / "model", NAME, revision="v1")
    text = on(account, branch="v1")["README.md"].decode()
    assert f'fc.load("hf://{NAME}@v1")' in text
    assert ModelCard(text).data.library_name == "fullconv"
    assert sorted(on(account)) == []  # of the main branch


def test_an_edited_card_stays_as_it_is(account: stand_in.Hub, run: Path) -> None:
    path = run / "model/README.md"
    path.write_text(path.read_text() + "\nTrained on my own street.\n")
    push(run, NAME)
    assert on(account)["README.md"] == path.read_bytes()
    path.unlink()
    push(run, NAME)
    assert f'fc.load("hf://{NAME}")' in on(account)["README.md"].decode()


def test_images_of_the_data_are_sent_on_request(account: stand_in.Hub, run: Path) -> None:
    push(run, NAME, images=True)
    files = on(account)
    assert sorted(files) == sorted([*SENT, "predictions.png"])
    assert files["predictions.png"] == (run / "images/epoch_0020.png").read_bytes()
    assert "(predictions.png)" in files["README.md"].decode()
    shutil.rmtree(run / "images")
    assert "there are no training images in" in refused(run, NAME, images=True).message


def test_again_and_to_a_branch(account: stand_in.Hub, run: Path) -> None:
    push(run, f"hf://{NAME}", message="the first")
    push(run, f"{NAME}@small", message="smaller")
    done = push(run, NAME, revision="small")
    repo = account.repos[NAME]
    card = (run / "model/README.md").read_text()
    title = next(line for line in card.splitlines() if line.startswith("# ")).removeprefix("# ")
    messages = [message for message in repo.messages if message != "by hand"]
    assert messages == ["the first", "smaller", f"{title}, by fullconv push"]
    assert repo.branches["small"] == done.commit
    assert done.address.endswith(f"/{NAME}/tree/small")


def test_private_is_private_or_nothing_is_sent(account: stand_in.Hub, run: Path) -> None:
    push(run, NAME, private=True)
    assert account.repos[NAME].private
    push(run, NAME, private=True)  # again
    account.repos[NAME].private = False
    before = account.repos[NAME].branches["main"]
    message = "exists and is public, so nothing was sent: --private does not make an existing"
    assert refused(run, NAME, private=True).message == f"{NAME} {message} repository private."
    assert account.repos[NAME].branches["main"] == before


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client itself
def test_large_files_go_the_way_of_large_files(
    account: stand_in.Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    account.large_from = 20_000
    push(run, NAME)
    weights = (run / "model/model.safetensors").read_bytes()
    assert list(account.large.values()) == [weights]
    assert on(account)["model.safetensors"] == weights
    before = dict(account.repos[NAME].branches)
    (run / "model/README.md").write_text("---\nlibrary_name: fullconv\n---\nanother card\n")
    account.refuses_large = True
    error = refused(run, NAME)
    assert isinstance(error, DownloadError)
    assert error.message.startswith(f"the weights could not be sent to hf://{NAME}: ")
    assert error.message.endswith("The model on the hub is unchanged.")
    assert account.repos[NAME].branches == before


def test_without_a_token_nothing_is_tried(hub: stand_in.Hub, run: Path) -> None:
    error = refused(run, NAME)
    message = f"{NAME} cannot be written: this machine has no token for {hub.address}."
    assert error.message == message
    assert error.hint.startswith("hf auth login")
    assert hub.requests == []


def test_a_token_that_is_not_known_and_a_name_of_others(
    account: stand_in.Hub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = refused(run, "others/streets")
    assert f"{account.address} denies access to others/streets (403" in error.message
    assert "You don't have the rights" in error.message
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "(401" in refused(run, NAME).message or "no model" in refused(run, NAME).message
    assert account.repos == {}


def test_a_damaged_model_is_not_sent(account: stand_in.Hub, run: Path) -> None:
    weights = run / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert "was altered or does not belong" in refused(run, NAME).message
    assert "no model at" in refused(run / "checkpoint", NAME).message
    assert "is a single file" in refused(weights, NAME).message
    assert "is not the name of a model on the hub" in refused(run, "streets").message
    assert account.requests == []


def test_a_head_that_the_hub_refuses(account: stand_in.Hub, run: Path) -> None:
    account.refused_head = '"license" must be one of [...]'
    error = refused(run, NAME)
    assert error.message.startswith("the hub rejects the metadata of README.md: ")
    assert '"license" must be one of' in error.message


def test_no_network(account: stand_in.Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused(run, NAME)
    assert isinstance(error, DownloadError)
    reason = "there is no network, or http://127.0.0.1:9 does not answer."
    assert error.message == f"hf://{NAME} is not reachable: {reason}"
    assert error.hint == f"fullconv push MODEL {NAME}   # again, with a network"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused(run, NAME)
    assert error.message.endswith("HF_HUB_OFFLINE forbids network access.")


def test_the_folder_is_left_as_it_was(account: stand_in.Hub, run: Path) -> None:
    before = {path: path.read_bytes() for path in (run / "model").iterdir()}
    push(run, NAME)
    assert {path: path.read_bytes() for path in (run / "model").iterdir()} == before
    assert b"hf://" not in before[run / "model/README.md"]
