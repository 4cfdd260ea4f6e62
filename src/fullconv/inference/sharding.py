"""Several processes that share one job: who does what, on which device, with how many threads.

`torchrun` tells each process its place by RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, `srun`
by SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count

_ANY = TypeVar("_ANY")
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # which it gives every process that it starts
_LONGEST = timedelta(days=100)  # of a job


@dataclass(frozen=True)
class Shard:
    """The place of this process among those of a job.

    Attributes:
        rank, of: which one it is, from 0, of how many.
        local, beside: the same among those on its machine; 0 of 1 where that is not known.
        alone: it may be the only one that was started, whatever SLURM_NTASKS says.
    """

    rank: int = 0
    of: int = 1
    local: int = 0
    beside: int = 1
    alone: bool = False

    def part(self, everything: Sequence[_ANY]) -> list[_ANY]:
        """Every `of`-th, so that neighbours, which tend to be alike, are spread."""
        return list(everything[self.rank :: self.of])

    def device(self) -> str:
        """The GPU of a process that shares its machine; else "auto". Needs torch."""
        import torch

        count = torch.cuda.device_count() if self.of > 1 and torch.cuda.is_available() else 0
        return f"cuda:{self.local % count}" if count else "auto"

    def threads(self, environ: Mapping[str, str] = os.environ) -> int | None:
        """Of the network on a CPU: the processors, divided among those on the machine. None: as it
        is, where somebody has said how many, or where nobody shares."""
        chosen = environ.get("OMP_NUM_THREADS")
        # Torchrun says 1 where nobody says anything.
        if self.beside == 1 or (chosen and not (chosen == "1" and _TORCHRUN in environ)):
            return None
        return max(1, cpu_count() // self.beside)

    def use_threads(self) -> None:
        """Tells torch how many threads this process has."""
        if count := self.threads():
            import torch

            torch.set_num_threads(count)


def current_shard(environ: Mapping[str, str] = os.environ) -> Shard:
    """The place of this process, as whoever started it says; 0 of 1 where nobody does.

    Raises:
        FullconvError: what it says makes no sense.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        rank, of = _place(environ, "RANK", "WORLD_SIZE")
        names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Shard(rank, of, *(_place(environ, *names) if names[1] in environ else (0, 1)))
    if "SLURM_PROCID" in environ and "SLURM_NTASKS" in environ:
        rank, of = _place(environ, "SLURM_PROCID", "SLURM_NTASKS")
        local = environ.get("SLURM_LOCALID", "0")
        if not local.isdecimal():
            raise _senseless(SLURM_LOCALID=local)
        # A batch script has these two as well; what srun starts has one more.
        alone = of > 1 and rank == 0 and "SLURM_STEP_NUM_TASKS" not in environ
        return Shard(rank, of, int(local), alone=alone)
    return Shard()


def wait_for_all(share: Shard, environ: Mapping[str, str] = os.environ) -> None:
    """Until all processes of a job that torchrun started are as far: one that ends with an exit
    code other than 0 costs the others theirs, as torchrun then ends them all."""
    if share.of == 1 or _TORCHRUN not in environ:
        return
    from torch.distributed import rendezvous

    store, _, of = next(rendezvous("env://", share.rank, share.of, timeout=_LONGEST))
    name = f"fullconv/predicted/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if store.add(f"{name}/count", 1) == of:
        store.set(f"{name}/all", "")
    store.wait([f"{name}/all"], _LONGEST)


def _place(environ: Mapping[str, str], rank: str, of: str) -> tuple[int, int]:
    said = {name: environ.get(name, "") for name in (rank, of)}
    if not all(text.isdecimal() for text in said.values()) or int(said[rank]) >= int(said[of]):
        raise _senseless(**said)
    return int(said[rank]), int(said[of])


def _senseless(**said: str) -> FullconvError:
    words = " ".join(f"{name}={text}" for name, text in said.items())
    return FullconvError(
        f"the environment says {words}; expected a number from 0, below that of the processes.",
        f"unset {' '.join(said)}",
    )
