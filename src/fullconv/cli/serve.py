"""The command that answers over HTTP: serve."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fullconv.cli.app import Flag, RuntimeOptions, app, model_name, print_result
from fullconv.cli.usage import check_model
from fullconv.core.errors import FullconvError
from fullconv.core.hardware import use_huge_pages
from fullconv.core.i18n import msg
from fullconv.core.progress import say, stage
from fullconv.core.text import shell_command

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_INSTALL = "pip install fastapi uvicorn python-multipart prometheus-client"
_BACKLOG = 128  # connections that the system holds before they are accepted


@app.command(sort_key=8)
def serve(
    model: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: Annotated[str, Parameter(env_var="FULLCONV_KEY")] = "",
    max_bytes: int = 32 << 20,
    max_pixels: int = 50_000_000,
    max_seconds: float = 60.0,
    queue: int = 32,
    runtime: Annotated[RuntimeOptions | None, Parameter(name="*")] = None,
    json: Flag = False,
) -> None:
    """Serve a model over HTTP, with a web page to try it.

    Args:
        model: Run or model folder, exported file, hf://user/name, or a published model.
        host: Address to listen on; 0.0.0.0 accepts other machines.
        port: Port; 0 picks a free one.
        key: Require this API key.
        max_bytes: Maximum size of an upload.
        max_pixels: Maximum size of an image.
        max_seconds: Maximum time of a request, from its first byte.
        queue: Maximum queued requests; more get HTTP 503 with Retry-After.
        json: Print one JSON object when the server is ready, and nothing else.
    """
    _check_options(max_bytes, max_pixels, max_seconds, queue, key)
    check_model("serve", model)
    for package in _PACKAGES:
        try:
            __import__(package)
        except ImportError as error:
            message = msg("a server needs {package}, which is not installed.", package=package)
            raise FullconvError(message, _INSTALL) from error

    # The socket first: loading the model takes seconds, and the port may be in use.
    with _listen(host, port) as listener:
        stage(msg("loading the model"))
        from fullconv.data.io.limits import allow_large_images
        from fullconv.deploy.serve.app import create_app
        from fullconv.deploy.serve.server import GracefulServer
        from fullconv.deploy.serve.uploads import Limits

        limits = Limits(max_bytes, max_pixels, max_seconds, queue)
        ip, port = listener.getsockname()[:2]
        address = f"http://{f'[{ip}]' if ':' in ip else ip}:{port}"
        name = model_name(model)
        with allow_large_images():  # `max_pixels` is the limit
            loaded = _load(model, runtime or RuntimeOptions())
            if not key and not ipaddress.ip_address(ip.partition("%")[0]).is_loopback:
                note = msg(
                    "note: anyone who reaches {address} can use it, because there is no key: "
                    "--key WORD, or FULLCONV_KEY",
                    address=address,
                )
                say(note)
            request = ["-H", "Content-Type: image/jpeg", "--data-binary", "@photo.jpg"]
            request += ["-H", "Authorization: Bearer KEY"] * bool(key)
            ahead = f"{shell_command('curl', *request, f'{address}/predict')} > mask.png"
            text = msg("Serving {name} at {address} (Ctrl-C to stop)", name=name, address=address)
            facts = {"address": address, "model": name}
            ready = partial(print_result, facts, text, json, ahead=ahead)
            application = create_app(loaded, name, limits, key)
            GracefulServer(application, max_seconds, ready).run(sockets=[listener])
    say(msg("Stopped. All accepted requests were completed."))


def _check_options(
    max_bytes: int, max_pixels: int, max_seconds: float, queue: int, key: str
) -> None:
    for option, count, usual in (
        ("--max-bytes", max_bytes, 32 << 20),
        ("--max-pixels", max_pixels, 50_000_000),
        ("--queue", queue, 32),
    ):
        if count < 1:
            message = msg("{option} is {count}; it must be 1 or more.", option=option, count=count)
            raise FullconvError(message, f"{option} {usual}")
    if not 0 < max_seconds < float("inf"):
        message = msg("--max-seconds is {seconds}; it must be more than 0.", seconds=max_seconds)
        raise FullconvError(message, "--max-seconds 60")
    if not all(33 <= ord(character) < 127 for character in key):
        message = msg(
            "the key has characters that an HTTP header cannot carry; expected ASCII letters, "
            "digits and signs without spaces."
        )
        raise FullconvError(message, "--key $(openssl rand -hex 16)")


def _load(model: Path, runtime: RuntimeOptions) -> Any:
    from fullconv.inference.exported import is_exported, load_exported
    from fullconv.models.hub import resolve_hub_name

    model = resolve_hub_name(model)
    if is_exported(model):  # needs no torch
        return load_exported(model, tile=runtime.tile)
    from fullconv.inference.predictor import load

    use_huge_pages()
    return load(model, **asdict(runtime))


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:
        message = msg("--port is {port}; it must be from 0 to 65535.", port=port)
        raise FullconvError(message, "--port 8000")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        message = msg("there is no host {host!r}: {reason}.", host=host, reason=error)
        raise FullconvError(message, "--host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        values = {"host": host, "port": port, "reason": error.strerror or str(error)}
        hint = shell_command("fullconv", "serve", "MODEL", "--host", "0.0.0.0")
        message = msg("{host} is not an address of this machine: {reason}.", **values)
        if error.errno == errno.EADDRINUSE:
            hint = msg("--port 0   # a free one")
            message = msg("port {port} of {host} is in use by another program.", **values)
        elif error.errno == errno.EACCES:
            hint = "--port 8000"
            message = msg("this user may not use port {port}; use one from 1024 on.", **values)
        raise FullconvError(message, hint) from error
    return listener
