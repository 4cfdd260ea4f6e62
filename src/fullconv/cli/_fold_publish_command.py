"""The command that sends a model to a hub: push."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fullconv.cli.app import Json, app, emit, say
from fullconv.core.errors import command


@app.command(sort_key=6)
def push(
    model: Path,
    name: str,
    *,
    private: bool = False,
    revision: str = "",
    message: str = "",
    pictures: bool = False,
    json: Json = False,
) -> None:
    """Send a model to the Hugging Face hub: weights, config.json and model card, nothing else.

    Parameters
    ----------
    model
        A model folder, or the run that holds it.
    name
        user/name; what is there under that name is overwritten.
    private
        Make it a private one.
    revision
        A branch to send it to; it is made where there is none.
    message
        Of the commit.
    pictures
        Send the run's newest sheet of validation pictures, too: pictures of your data.
    json
        Print one JSON object and nothing else.
    """
    from fullconv.deploy.push import push as push_model

    say(f"{model} -> {name}")
    done = push_model(
        model,
        name,
        private=private,
        revision=revision,
        message=message,
        pictures=pictures,
    )
    text = f"{done.address}   # {', '.join(done.files)}"
    ahead = command("fullconv", "predict", done.name, "PICTURES")
    emit(asdict(done), text, json, ahead=ahead)
