"""Share the images of a job among processes, with their devices and threads.

`torchrun` sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE for each process; `srun` sets
SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.core.i18n import msg

_T = TypeVar("_T")
_TORCHRUN = "TORCHELASTIC_RUN_ID"  # torchrun sets it for every process
_MAX_DURATION = timedelta(days=100)  # of a job


@dataclass(frozen=True)
class Shard:
    """The position of this process among those of a job."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0  # among the processes on this machine
    local_count: int = 1  # of processes on this machine; 1 if unknown
    maybe_alone: bool = False  # it may be the only process, despite SLURM_NTASKS

    def part(self, items: Sequence[_T]) -> list[_T]:
        """Return every `count`-th item, which spreads neighbors: they tend to be similar."""
        return list(items[self.rank :: self.count])

    def device(self) -> str:
        """Return this process's GPU if the machine is shared, otherwise "auto". Needs torch."""
        import torch

        gpus = torch.cuda.device_count() if self.count > 1 and torch.cuda.is_available() else 0
        return f"cuda:{self.local_rank % gpus}" if gpus else "auto"

    def threads(self, environ: Mapping[str, str] = os.environ) -> int | None:
        """Return the number of CPU threads for the network: the processors divided by the processes
        on this machine. None if OMP_NUM_THREADS is set or the machine is not shared."""
        chosen = environ.get("OMP_NUM_THREADS")
        torchrun_default = chosen == "1" and _TORCHRUN in environ
        if self.local_count == 1 or (chosen and not torchrun_default):
            return None
        return max(1, cpu_count() // self.local_count)

    def set_torch_threads(self) -> None:
        if threads := self.threads():
            import torch

            torch.set_num_threads(threads)


def current_shard(environ: Mapping[str, str] = os.environ) -> Shard:
    """Return the position of this process, from the environment; 0 of 1 by default.

    Raises:
        FullconvError: contradictory values in the environment.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        rank, count = _read_pair(environ, "RANK", "WORLD_SIZE")
        local = (0, 1)
        if "LOCAL_WORLD_SIZE" in environ:
            local = _read_pair(environ, "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Shard(rank, count, *local)
    if "SLURM_PROCID" in environ and "SLURM_NTASKS" in environ:
        rank, count = _read_pair(environ, "SLURM_PROCID", "SLURM_NTASKS")
        local_rank = environ.get("SLURM_LOCALID", "0")
        if not local_rank.isdecimal():
            raise _invalid(SLURM_LOCALID=local_rank)
        # Batch scripts have these two variables as well; srun sets one more.
        maybe_alone = count > 1 and rank == 0 and "SLURM_STEP_NUM_TASKS" not in environ
        return Shard(rank, count, int(local_rank), maybe_alone=maybe_alone)
    return Shard()


def wait_for_all(shard: Shard, environ: Mapping[str, str] = os.environ) -> None:
    """Wait until all processes that torchrun started have called this function. Otherwise a process
    that ends with an error code makes torchrun kill the others."""
    if shard.count == 1 or _TORCHRUN not in environ:
        return
    from torch.distributed import rendezvous

    store, _, count = next(rendezvous("env://", shard.rank, shard.count, timeout=_MAX_DURATION))
    name = f"fullconv/predicted/{environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if store.add(f"{name}/count", 1) == count:
        store.set(f"{name}/all", "")
    store.wait([f"{name}/all"], _MAX_DURATION)


def _read_pair(environ: Mapping[str, str], rank: str, count: str) -> tuple[int, int]:
    values = {name: environ.get(name, "") for name in (rank, count)}
    are_numbers = all(text.isdecimal() for text in values.values())
    if not are_numbers or int(values[rank]) >= int(values[count]):
        raise _invalid(**values)
    return int(values[rank]), int(values[count])


def _invalid(**values: str) -> FullconvError:
    message = msg(
        "the environment has {variables}; expected a rank from 0 up to the number of processes "
        "less one.",
        variables=" ".join(f"{name}={text}" for name, text in values.items()),
    )
    return FullconvError(message, f"unset {' '.join(values)}")
