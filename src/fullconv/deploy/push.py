"""Publish: a model's folder to a hub, as `fullconv.load("hf://user/name")` takes it from there."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.text import shell_command
from fullconv.models.hub import (
    CONFIG,
    WEIGHTS,
    HubName,
    endpoint,
    explain_hub_errors,
    hub_client,
    parse_hub_name,
    progress_bars,
)
from fullconv.models.model import README, read_model_config
from fullconv.models.model_card import model_card, model_title

IMAGE = "predictions.png"


@dataclass(frozen=True)
class Pushed:
    """A model that lies on the hub.

    Args:
        name: for `fullconv.load`: hf://user/name.
        address: to look at in a browser.
        commit: that holds it.
        files: that were sent.
    """

    name: str
    address: str
    commit: str
    files: tuple[str, ...]


def push(
    model: str | Path,
    name: str,
    *,
    private: bool = False,
    revision: str = "",
    message: str = "",
    images: bool = False,
) -> Pushed:
    """Sends a model to the hub: its weights, config.json and model card. Checkpoints, logs and
    images stay behind.

    Args:
        model: a model folder, or the run that holds it.
        name: user/name. What is there under that name is overwritten.
        private: make it a private one. A public one that is there already is left alone.
        revision: a branch to send it to, made where there is none; "" for the main one.
        message: of the commit.
        images: send the run's newest sheet of validation images, too, and show it in the
            card. They are images of your data.

    Raises:
        FullconvError: no whole model there, no token, no access, no network.
    """
    target = parse_hub_name(name)
    target = HubName(target.repo, revision or target.revision)
    folder, config = read_model_config(model)
    sheet = _newest_sheet(folder) if images else None
    parts: dict[str, Any] = {
        README: _card(folder, config, target, IMAGE if sheet else ""),
        CONFIG: str(folder / CONFIG),
        WEIGHTS: str(folder / WEIGHTS),
    }
    if sheet is not None:
        parts[IMAGE] = str(sheet)
    _require_token(target)
    with explain_hub_errors(target, sending=True):
        _require_place(target, private)
        commit = _commit(target, parts, message or f"{model_title(config)}, by fullconv push")
    address = f"{endpoint()}/{target.repo}"
    if target.revision:
        address += f"/tree/{target.revision}"
    return Pushed(str(target), address, str(commit.oid), tuple(parts))


def _card(folder: Path, config: dict[str, Any], target: HubName, image: str) -> bytes:
    """The one that lies there, if somebody wrote in it; else one that names the hub's model."""
    path = folder / README
    there = path.read_text(encoding="utf-8") if path.is_file() else ""
    if there and there != model_card(config):
        return there.encode()
    return model_card(config, source=str(target), image=image).encode()


def _newest_sheet(folder: Path) -> Path:
    sheets = sorted((folder.parent / "images").glob("epoch_*.png"))
    if not sheets:
        raise FullconvError(
            f"there are no images of the training in {folder.parent / 'images'}.",
            "fullconv train DATA --log-images-every 5",
        )
    return sheets[-1]


def _require_token(target: HubName) -> None:
    from huggingface_hub import get_token

    if not get_token():
        raise FullconvError(
            f"{target.repo} cannot be written to: this machine has no token of an account on "
            f"{endpoint()}.",
            "hf auth login   # with a token that may write",
        )


def _require_place(target: HubName, private: bool) -> None:
    """The repository and its branch."""
    client = hub_client()
    client.create_repo(target.repo, private=private or None, exist_ok=True)
    if private and not client.model_info(target.repo).private:
        raise FullconvError(
            f"{target.repo} is there already, and public: nothing was sent. --private makes no "
            "public model private.",
            shell_command("fullconv", "push", "MODEL", f"{target.repo}-private", "--private"),
        )
    if target.revision:
        client.create_branch(target.repo, branch=target.revision, exist_ok=True)


def _commit(target: HubName, parts: dict[str, Any], message: str) -> Any:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in parts.items()]
    try:
        with warnings.catch_warnings(), progress_bars(True):
            warnings.filterwarnings("ignore", message="Warnings while validating metadata")
            return hub_client().create_commit(
                target.repo,
                operations,
                commit_message=message,
                revision=target.revision or None,
            )
    except RuntimeError as error:  # of the part that sends large files
        cause = error.__cause__ or error
        said = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
        again = shell_command("fullconv", "push", "MODEL", target.repo)
        raise DownloadError(
            f"the weights could not be sent to {target}: {said}. What lies there is as it was.",
            f"{again}   # again",
            again,
        ) from error
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise FullconvError(
            f"the hub does not take the head of {README}: {said}.",
            f"the lines between --- at the top of {README}",
        ) from error
