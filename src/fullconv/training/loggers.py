"""Lightning's loggers: TensorBoard and Weights & Biases.

runs/first/tensorboard/   tensorboard --logdir runs
runs/first/wandb/         sent to Weights & Biases, or kept here if WANDB_MODE is offline
"""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fullconv.core.errors import FullconvError
from fullconv.core.i18n import msg

_TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases"}


def require_loggers(names: Sequence[str]) -> None:
    """Raise a FullconvError if the package of a logger is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            message = msg(
                "--logger {name}: {title} needs the package {name}, which is not installed.",
                name=name,
                title=_TITLES[name],
            )
            raise FullconvError(message, f"pip install {name}")


def build_loggers(names: Sequence[str], folder: Path, *, quiet: bool) -> list[Any]:
    """Return Lightning's loggers, which write to the run's folder; a resumed run continues them.

    Raises:
        FullconvError: Weights & Biases has no account to log in with.
    """
    return [_wandb(folder, quiet) if name == "wandb" else _tensorboard(folder) for name in names]


def finish_loggers(loggers: Sequence[Any]) -> None:
    """End the runs at Weights & Biases: another stage is another run there."""
    for logger in loggers:
        if hasattr(logger, "log_image"):
            logger.experiment.finish()


def _tensorboard(folder: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False)


def _wandb(folder: Path, quiet: bool) -> Any:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    # The id of the run at Weights & Biases is kept, so that a resumed run continues there.
    id_file = folder / "wandb" / "id.txt"
    id_file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), id_file.open("x", encoding="utf-8") as file:
        file.write(uuid.uuid4().hex[:8])
    is_stage = (folder.parent / "config.toml").is_file()
    logger = WandbLogger(
        name="/".join(folder.resolve().parts[-2:]) if is_stage else folder.resolve().name,
        save_dir=folder,
        id=id_file.read_text(encoding="utf-8").strip(),
        project=os.environ.get("WANDB_PROJECT", "fullconv"),
        resume="allow",
        settings=wandb.Settings(silent=quiet, console="off"),
    )
    try:
        _ = logger.experiment  # connects now, before anything is trained
    except wandb.errors.Error as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise FullconvError(
            msg("Weights & Biases could not start: {reason}.", reason=reason),
            msg("wandb login   # or WANDB_MODE=offline, to keep everything in the run's folder"),
        ) from error
    return logger
