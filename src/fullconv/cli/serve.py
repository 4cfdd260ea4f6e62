"""The command that answers over HTTP: serve."""

from __future__ import annotations

import errno
import ipaddress
import socket
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Json, Precision, app, name_of, print_result, say
from fullconv.core.errors import FullconvError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.text import shell_command

_NEEDS = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_WAITING = 128  # connections that the system holds before they are accepted


@app.command(sort_key=5)
def serve(
    model: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: Annotated[str, Parameter(env_var="FULLCONV_KEY")] = "",
    max_bytes: int = 32 << 20,
    max_pixels: int = 50_000_000,
    max_seconds: float = 60.0,
    queue: int = 32,
    precision: Precision = "auto",
    compile: bool = False,
    tile: int | None = None,
    json: Json = False,
) -> None:
    """Answer over HTTP with a label for every pixel, and show a page to try it on.

    Parameters
    ----------
    model
        A model folder, the run that holds it, an exported file, hf://user/name, or a model of
        others.
    host
        The address to listen at. Other machines reach 0.0.0.0 (any) or a name of this one.
    port
        0 takes one that is free.
    key
        Only requests that carry it are answered.
    max_bytes
        Of an upload.
    max_pixels
        Of an image.
    max_seconds
        For a request, from its first byte.
    queue
        Images that may wait; further ones are told to come again.
    precision
        See predict.
    compile
        See predict.
    tile
        See predict.
    json
        Print one JSON object when it listens, and nothing else.
    """
    _require_packages()
    from fullconv.data.io.limits import allow_large_images
    from fullconv.deploy.serve.uploads import Limits

    _require_sense(max_bytes, max_pixels, max_seconds, queue, key)
    limits = Limits(max_bytes, max_pixels, max_seconds, queue)
    with _listening(host, port) as listener, allow_large_images():  # but for `max_pixels`
        loaded = _loaded(model, precision=precision, compile=compile, tile=tile)
        _run(loaded, name_of(model), listener, limits, key, json)
    say("ended; what was taken is finished")


def _run(model: Any, name: str, listener: socket.socket, limits: Any, key: str, json: bool) -> None:
    """Answers until it is told to end."""
    from fullconv.deploy.serve.app import create_app
    from fullconv.deploy.serve.server import GracefulServer

    address = _address(listener)
    if not key and not _is_loopback(listener):
        say(
            f"note: whoever reaches {address} may use it, for there is no key: "
            "--key WORD, or FULLCONV_KEY"
        )
    text, facts = f"{name} at {address}   # Ctrl-C ends it", {"address": address, "model": name}
    application = create_app(model, name, limits, key)
    sent = ["-H", "Content-Type: image/jpeg", "--data-binary", "@photo.jpg"]
    sent += ["-H", "Authorization: Bearer KEY"] * bool(key)
    ahead = f"{shell_command('curl', *sent, f'{address}/predict')} > mask.png"
    listening = partial(print_result, facts, text, json, ahead=ahead)
    server = GracefulServer(application, limits.seconds, listening)
    server.run(sockets=[listener])


def _require_packages() -> None:
    for name in _NEEDS:
        try:
            __import__(name)
        except ImportError as error:
            raise FullconvError(
                f"a server needs {name}, which is not installed.",
                "pip install fastapi uvicorn python-multipart",
            ) from error


def _require_sense(
    max_bytes: int, max_pixels: int, max_seconds: float, queue: int, key: str
) -> None:
    for option, count, usual in (
        ("--max-bytes", max_bytes, 32 << 20),
        ("--max-pixels", max_pixels, 50_000_000),
        ("--queue", queue, 32),
    ):
        if count < 1:
            raise FullconvError(f"{option} {count}; expected 1 or more.", f"{option} {usual}")
    if not 0 < max_seconds < float("inf"):
        raise FullconvError(
            f"--max-seconds {max_seconds}; expected more than 0.", "--max-seconds 60"
        )
    if not all(33 <= ord(one) < 127 for one in key):
        raise FullconvError(
            "the key has characters that a header cannot carry; expected letters, digits and "
            "signs of ASCII, without spaces.",
            "--key $(openssl rand -hex 16)",
        )


def _loaded(model: Path, **how: Any) -> Any:
    from fullconv.inference.exported import is_exported, load_exported
    from fullconv.models.hub import resolve_hub_name

    model = resolve_hub_name(model)
    if is_exported(model):  # which needs no torch
        return load_exported(model, tile=how["tile"])
    from fullconv.inference.predictor import load

    use_huge_pages()
    return load(model, **how)


def _listening(host: str, port: int) -> socket.socket:
    """A socket there. It is taken before the model is read, which takes seconds."""
    if not 0 <= port < 1 << 16:
        raise FullconvError(f"port {port}; expected 0 to 65535.", "--port 8000")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise FullconvError(f"there is no host {host!r}: {error}.", "--host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_WAITING)
    except OSError as error:
        listener.close()
        raise _refused(host, port, error) from error
    return listener


def _refused(host: str, port: int, error: OSError) -> FullconvError:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return FullconvError(
            f"port {port} is in use: another program listens at {where}.", "--port 0   # a free one"
        )
    if error.errno == errno.EACCES:
        return FullconvError(
            f"port {port} may not be taken by this user; expected one from 1024 on.", "--port 8000"
        )
    said = error.strerror or error
    return FullconvError(
        f"{where} is no address of this machine: {said}.",
        shell_command("fullconv", "serve", "MODEL", "--host", "0.0.0.0"),
    )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
