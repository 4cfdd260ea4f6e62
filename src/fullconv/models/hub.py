"""Models on a hub, by name: hf://user/name, or hf://user/name@revision.

They are fetched through huggingface_hub, into its cache: the weights and config.json, nothing else,
and only where config.json says that it is one of ours. What is in the cache is found without
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
from fullconv.core.text import shell_command, truncated_list

PREFIX = "hf://"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
_STARTS = re.compile(r"hf:[/\\]{1,2}")  # a path makes one stroke of two
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"({_WORD}/{_WORD})(?:@(.+))?")
_SIGN_IN = "hf auth login   # or HF_TOKEN=..., a token of your account"


@dataclass(frozen=True)
class HubName:
    """A model's name on the hub.

    Args:
        repo: user/name.
        revision: a branch, a tag or a commit; "" for the newest of the main branch.
    """

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + f"@{self.revision}" * bool(self.revision)


def is_hub_name(path: str | Path) -> bool:
    """Whether this names a model on the hub, and no file.

    >>> is_hub_name("hf://user/name"), is_hub_name(Path("hf://user/name")), is_hub_name("runs/a")
    (True, True, False)
    """
    return _STARTS.match(str(path)) is not None


def parse_hub_name(name: str | Path) -> HubName:
    """Of "user/name", hf://user/name or hf://user/name@revision.

    >>> parse(Path("hf://user/name@v1"))
    HubName(repo='user/name', revision='v1')

    Raises:
        FullconvError: it is none.
    """
    said = _STARTS.sub("", str(name))
    found = _NAME.fullmatch(said.replace("\\", "/"))
    if found is None or ".." in found[1] or "--" in found[1]:
        raise FullconvError(
            f"{PREFIX}{said} is no name of a model on the hub: expected {PREFIX}USER/NAME or "
            f"{PREFIX}USER/NAME@REVISION, of letters, digits, '-', '_' and '.'.",
            shell_command("fullconv", "predict", f"{PREFIX}USER/NAME", "IMAGES"),
        )
    return HubName(found[1], found[2] or "")


def resolve_hub_name(path: str | Path) -> Path:
    """The folder of a model on the hub, fetched where it is not there yet; any other path as it is.

    Raises:
        FullconvError: no such model or revision, no access, no network, or no model of ours.
    """
    if not is_hub_name(path):
        return Path(path)
    name = parse_hub_name(path)
    with explain_hub_errors(name):
        folder = _snapshot(name, [CONFIG])
        _require_ours(name, folder)
        return _snapshot(name, [CONFIG, WEIGHTS])


def endpoint() -> str:
    """The hub's address, as HF_ENDPOINT has it."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def hub_client() -> Any:
    """huggingface_hub's client."""
    from huggingface_hub import HfApi

    from fullconv.core.packages import __version__

    version = __version__
    return HfApi(endpoint=endpoint(), library_name="fullconv", library_version=version)


@contextmanager
def explain_hub_errors(name: HubName, *, sending: bool = False) -> Iterator[None]:
    """What the hub refuses, in words, when a model is fetched from it or sent there."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise FullconvError(
            f"{name} asks that its terms are accepted before it is fetched: {_token()}.",
            f"{_SIGN_IN}; and accept them at {endpoint()}/{name.repo}",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FullconvError(
            f"{name.repo} has no branch, tag or commit {name.revision!r}{_revisions(name)}.",
            shell_command("fullconv", "inspect", HubName(name.repo)),
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FullconvError(
            f"there is no model {name.repo} on {endpoint()}, or it is private: {_token()}.",
            _SIGN_IN,
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreached(name, sending) from error
    except errors.HfHubHTTPError as error:
        raise _refused(name, error, sending) from error
    except errors.OfflineModeIsEnabled as error:
        raise _unreached(name, sending) from error
    except Exception as error:
        if type(error).__name__ not in _LOST:
            raise
        raise _unreached(name, sending) from error


# What the client's own client raises where nothing answers.
_LOST = ("ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError")


@contextmanager
def progress_bars(wanted: bool) -> Iterator[None]:
    """The client's progress bars: where they are wanted, on a terminal."""
    from huggingface_hub.utils import are_progress_bars_disabled as are_off
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    silent = not are_off() and not (wanted and sys.stderr.isatty())
    if silent:
        disable_progress_bars()
    try:
        yield
    finally:
        if silent:
            enable_progress_bars()


def _snapshot(name: HubName, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    from fullconv.core.packages import __version__

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


def _require_ours(name: HubName, folder: Path) -> None:
    """Before anything large is fetched."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        found = str(config.get("format", "")) if isinstance(config, dict) else ""
        what = f"its {CONFIG} is of something else"
        if isinstance(config, dict) and config.get("model_type"):
            what += f" (model_type {config['model_type']!r})"
    except FileNotFoundError:
        found, what = "", f"it has no {CONFIG}"
    except ValueError:
        found, what = "", f"its {CONFIG} is not JSON"
    if found.startswith("fullconv/"):
        return
    raise FullconvError(
        f"{name} is no model of fullconv: {what}{_contents(name)}; expected {CONFIG} and {WEIGHTS} "
        "as `fullconv push` sends them.",
        shell_command("fullconv", "push", "RUN", "USER/NAME"),
    )


def _contents(name: HubName) -> str:
    """What it holds instead, where the hub says so."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        files = hub_client().list_repo_files(name.repo, revision=name.revision or None)
    except (HfHubHTTPError, OfflineModeIsEnabled):
        return ""
    return f", it holds {truncated_list(sorted(files), 8) or 'nothing'}"


def _revisions(name: HubName) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        refs = hub_client().list_repo_refs(name.repo)
    except HfHubHTTPError:
        return ""
    return f"; it has {truncated_list([one.name for one in (*refs.branches, *refs.tags)])}"


def _token() -> str:
    from huggingface_hub import get_token

    if get_token():
        return "the token that this machine sends may not see it"
    return "this machine sends no token"


def _unreached(name: HubName, sending: bool) -> FullconvError:
    from huggingface_hub import constants

    again = _again(name, sending)
    what = f"{name} is not in the cache of this machine"
    if constants.HF_HUB_OFFLINE and os.environ.get("HF_HUB_OFFLINE"):
        what = f"nothing was sent to {name}" if sending else what
        return FullconvError(
            f"{what}: HF_HUB_OFFLINE keeps this machine from the network.",
            f"HF_HUB_OFFLINE=0 {again}",
        )
    what = f"{name} could not be reached" if sending else f"{what} and could not be fetched"
    return DownloadError(
        f"{what}: there is no network, or {endpoint()} does not answer.",
        f"{again}   # again, with a network",
        again,
    )


def _again(name: HubName, sending: bool) -> str:
    if sending:
        return shell_command("fullconv", "push", "MODEL", name.repo)
    return shell_command("fullconv", "inspect", name)


def _refused(name: HubName, error: Any, sending: bool) -> FullconvError:
    status = error.response.status_code if error.response is not None else 0
    said = str(error.server_message or "").strip().rstrip(".")
    more = f": {said}" if said else ""
    if status in (401, 403):
        return FullconvError(
            f"{endpoint()} does not let this machine do that with {name.repo} ({status}{more}): "
            f"{_token().replace('see it', 'do it')}.",
            _SIGN_IN,
        )
    again = _again(name, sending)
    return DownloadError(
        f"{endpoint()} answered {status} about {name}{more}.", f"{again}   # a little later", again
    )
