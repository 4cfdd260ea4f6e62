"""Models on a hub, by name: hf://user/name, or hf://user/name@revision.

huggingface_hub downloads them into its cache: config.json first, and the weights only if
config.json is that of a fullconv model. Nothing else is downloaded. A cached model needs no
network.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullconv.core.errors import DownloadError, FullconvError
from fullconv.core.i18n import msg
from fullconv.core.packages import __version__
from fullconv.core.text import first_line, shell_command

PREFIX = "hf://"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_PREFIX = re.compile(r"hf:[/\\]{1,2}")  # a Path turns // into /
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:@(.+))?")
_SIGN_IN = msg("hf auth login   # or HF_TOKEN=..., a token of your account")
# Exceptions of the HTTP client if nothing answers.
_NO_ANSWER = {"ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError"}


@dataclass(frozen=True)
class HubName:
    """The name of a model on the hub."""

    repo: str  # user/name
    revision: str = ""  # a branch, a tag or a commit; "" for the newest commit of the main branch

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + f"@{self.revision}" * bool(self.revision)


def is_hub_name(path: str | Path) -> bool:
    """Return whether this names a model on the hub; a Path turns its // into /."""
    return _PREFIX.match(str(path)) is not None


def parse_hub_name(name: str | Path) -> HubName:
    """Parse "user/name", hf://user/name or hf://user/name@revision.

    >>> parse_hub_name(Path("hf://user/name@v1"))
    HubName(repo='user/name', revision='v1')

    Raises:
        FullconvError: not a valid name.
    """
    text = _PREFIX.sub("", str(name))
    match = _NAME.fullmatch(text.replace("\\", "/"))
    if match is None or ".." in match[1] or "--" in match[1]:
        message = msg(
            "hf://{text} is not the name of a model on the hub; expected hf://USER/NAME or "
            "hf://USER/NAME@REVISION, of letters, digits, '-', '_' and '.'.",
            text=text,
        )
        raise FullconvError(message, "fullconv predict hf://USER/NAME IMAGES")
    return HubName(match[1], match[2] or "")


def resolve_hub_name(path: str | Path) -> Path:
    """Return the folder of a model on the hub, downloaded if necessary; any other path unchanged.

    Raises:
        FullconvError: no such model or revision, no access, no network, or not a fullconv model.
    """
    if not is_hub_name(path):
        return Path(path)
    name = parse_hub_name(path)
    with explain_hub_errors(name):
        folder = _download(name, [CONFIG])
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            config = None
        if not (isinstance(config, dict) and str(config.get("format")).startswith("fullconv/")):
            values = {"name": name, "config": CONFIG, "weights": WEIGHTS}
            message = msg(
                "{name} is not a fullconv model; expected {config} and {weights} as "
                "`fullconv push` uploads them.",
                **values,
            )
            raise FullconvError(message, "fullconv push RUN USER/NAME")
        return _download(name, [CONFIG, WEIGHTS])


def endpoint() -> str:
    """Return the hub's address, HF_ENDPOINT or the default."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_client() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="fullconv", library_version=__version__)


@contextmanager
def explain_hub_errors(name: HubName, *, sending: bool = False) -> Iterator[None]:
    """Turn the errors of huggingface_hub into FullconvError."""
    from huggingface_hub import errors, get_token

    retry = shell_command("fullconv", "inspect", name)
    if sending:
        retry = shell_command("fullconv", "push", "MODEL", name.repo)
    token = msg("this machine has no access token")
    if get_token():
        token = msg("the access token of this machine may lack permission")
    values = {"name": name, "repo": name.repo, "hub": endpoint(), "token": token}
    try:
        yield
    except errors.GatedRepoError as error:
        message = msg(
            "the terms of {name} must be accepted before it is downloaded: {token}.", **values
        )
        hint = msg("{sign_in}; accept the terms at {hub}/{repo}", sign_in=_SIGN_IN, **values)
        raise FullconvError(message, hint) from error
    except errors.RevisionNotFoundError as error:
        revision = name.revision
        raise FullconvError(
            msg("{repo} has no branch, tag or commit {revision!r}.", revision=revision, **values),
            shell_command("fullconv", "inspect", HubName(name.repo)),
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FullconvError(
            msg("{hub} has no model {repo}, or it is private: {token}.", **values), _SIGN_IN
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(values, retry) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        values |= {"status": status, "reason": str(error.server_message or first_line(error))}
        if status in (401, 403):
            message = msg("{hub} denies access to {repo} ({status}, {reason}): {token}.", **values)
            raise FullconvError(message, _SIGN_IN) from error
        message = msg("{hub} answered with status {status} for {name}: {reason}.", **values)
        hint = msg("{command}   # a little later", command=retry)
        raise DownloadError(message, hint, retry) from error
    except Exception as error:
        if type(error).__name__ not in _NO_ANSWER:
            raise
        raise _unreachable(values, retry) from error


def _unreachable(values: dict[str, Any], retry: str) -> FullconvError:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and os.environ.get("HF_HUB_OFFLINE"):
        message = msg(
            "{name} is not in the cache, and HF_HUB_OFFLINE forbids network access.", **values
        )
        return FullconvError(message, f"HF_HUB_OFFLINE=0 {retry}")
    message = msg(
        "{name} is not reachable: there is no network, or {hub} does not answer.", **values
    )
    hint = msg("{command}   # again, with a network", command=retry)
    return DownloadError(message, hint, retry)


@contextmanager
def progress_bars(wanted: bool) -> Iterator[None]:
    """Show the client's progress bars in this block if `wanted` and stderr is a terminal."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not are_progress_bars_disabled() and not (wanted and sys.stderr.isatty())
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _download(name: HubName, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    with progress_bars(WEIGHTS in files):
        folder = snapshot_download(
            name.repo,
            revision=name.revision or None,
            allow_patterns=files,
            library_name="fullconv",
            library_version=__version__,
            endpoint=endpoint(),
        )
    return Path(folder)
