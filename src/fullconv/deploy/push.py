"""Push a model to the Hugging Face Hub, from where `fullconv.load("hf://user/name")` reads it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, get_token

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.i18n import msg
from fullconv.core.text import first_line, shell_command
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
    """A model on the hub: its name for `fullconv.load`, its address for a browser, the commit, and
    the files that were sent."""

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
    """Upload the weights, config.json and model card of a model. Nothing else is sent.

    Args:
        model: a model folder, or the run that contains it.
        name: user/name. An existing model of this name is overwritten.
        private: create a private repository. An existing public one is refused.
        revision: a branch, created if it is missing; "" for the main one.
        images: also send the run's newest sheet of validation images: it shows your data.

    Raises:
        FullconvError: no complete model, no token, no access, no network.
    """
    target = parse_hub_name(name)
    target = HubName(target.repo, revision or target.revision)
    folder, config = read_model_config(model)
    files: dict[str, Any] = {CONFIG: str(folder / CONFIG), WEIGHTS: str(folder / WEIGHTS)}
    if images:
        place = folder.parent / "images"
        sheets = sorted(place.glob("epoch_*.png"))
        if not sheets:
            text = msg("there are no training images in {folder}.", folder=place)
            raise FullconvError(text, "fullconv train DATA --log-images-every 5")
        files[IMAGE] = str(sheets[-1])

    # The model card: as edited by the user, or one that names the model on the hub.
    path = folder / README
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not card or card == model_card(config):
        card = model_card(config, source=str(target), image=IMAGE if images else "")
    files = {README: card.encode(), **files}

    repo = target.repo
    if not get_token():
        text = msg(
            "{repo} cannot be written: this machine has no token for {endpoint}.",
            repo=repo,
            endpoint=endpoint(),
        )
        raise FullconvError(text, msg("hf auth login   # with a token that has write access"))
    client = hub_client()
    with explain_hub_errors(target, sending=True):
        client.create_repo(repo, private=private or None, exist_ok=True)
        if private and not client.model_info(repo).private:
            text = msg(
                "{repo} exists and is public, so nothing was sent: --private does not make an "
                "existing repository private.",
                repo=repo,
            )
            hint = shell_command("fullconv", "push", "MODEL", f"{repo}-private", "--private")
            raise FullconvError(text, hint)
        if target.revision:
            client.create_branch(repo, branch=target.revision, exist_ok=True)
        commit = _commit(target, files, message or f"{model_title(config)}, by fullconv push")
    address = f"{endpoint()}/{repo}" + f"/tree/{target.revision}" * bool(target.revision)
    return Pushed(str(target), address, str(commit.oid), tuple(files))


def _commit(target: HubName, files: dict[str, Any], message: str) -> Any:
    try:
        with warnings.catch_warnings(), progress_bars(True):
            warnings.filterwarnings("ignore", message="Warnings while validating metadata")
            return hub_client().create_commit(
                target.repo,
                [CommitOperationAdd(name, content) for name, content in files.items()],
                commit_message=message,
                revision=target.revision or None,
            )
    except RuntimeError as error:  # of the upload of large files
        command = shell_command("fullconv", "push", "MODEL", target.repo)
        text = msg(
            "the weights could not be sent to {target}: {reason}. The model on the hub is "
            "unchanged.",
            target=str(target),
            reason=first_line(error.__cause__ or error),
        )
        hint = msg("{command}   # try again", command=command)
        raise DownloadError(text, hint, command) from error
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        values = {"file": README, "reason": " ".join(str(error).split())}
        text = msg("the hub rejects the metadata of {file}: {reason}.", **values)
        hint = msg("edit the lines between --- at the top of {file}", file=README)
        raise FullconvError(text, hint) from error
