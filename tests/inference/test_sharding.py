"""Processes that share a job: images, devices and threads."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullconv.core.hardware import cpu_count
from fullconv.inference.sharding import Shard, current_shard, wait_for_all

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "1"}
FIRST = {**SRUN, "SLURM_PROCID": "0"}
TORCHRUN_THREADS = {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}  # its default
HALF = max(1, cpu_count() // 2)


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_image_belongs_to_one_process(images: int, processes: int) -> None:
    parts = [Shard(rank, processes).part(range(images)) for rank in range(processes)]
    assert sorted(chain(*parts)) == list(range(images))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("environ", "shard"),
    [
        ({}, Shard(0, 1)),
        ({"RANK": "3"}, Shard(0, 1)),  # another program's variable
        (TORCHRUN, Shard(5, 8, 1, 4)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Shard(1, 2)),
        (SRUN, Shard(2, 3, 1)),
        ({**SRUN, **TORCHRUN}, Shard(5, 8, 1, 4)),
        (FIRST, Shard(0, 3, 1, maybe_alone=True)),  # a batch script without srun
        ({**FIRST, "SLURM_STEP_NUM_TASKS": "3"}, Shard(0, 3, 1)),
        ({**FIRST, "SLURM_NTASKS": "1"}, Shard(0, 1, 1)),
    ],
)
def test_the_environment_sets_the_shard(environ: dict[str, str], shard: Shard) -> None:
    assert current_shard(environ) == shard


@pytest.mark.parametrize(
    ("shard", "environ", "threads"),
    [
        (Shard(0, 2, 0, 2), {}, HALF),
        (Shard(0, 2, 0, 10_000), {}, 1),
        (Shard(0, 2, 0, 2), TORCHRUN_THREADS, HALF),
        (Shard(0, 2, 0, 2), {**TORCHRUN_THREADS, "OMP_NUM_THREADS": "3"}, None),
        (Shard(0, 2, 0, 2), {"OMP_NUM_THREADS": "1"}, None),
        (Shard(), {}, None),
        (Shard(0, 2), {}, None),  # the number of processes on the machine is unknown
    ],
)
def test_processes_of_a_machine_divide_its_threads(
    shard: Shard, environ: dict[str, str], threads: int | None
) -> None:
    assert shard.threads(environ) == threads


def test_torch_gets_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Shard().set_torch_threads()
    Shard(0, 2, 0, 10_000).set_torch_threads()
    assert calls == [1]


@pytest.mark.parametrize(
    ("shard", "gpus", "device"),
    [
        (Shard(5, 8, 1, 4), 4, "cuda:1"),
        (Shard(5, 8, 3, 4), 1, "cuda:0"),  # each process sees only its own
        (Shard(5, 8, 1, 4), 0, "auto"),
        (Shard(), 4, "auto"),
    ],
)
def test_each_process_of_a_machine_has_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, shard: Shard, gpus: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert shard.device() == device


def test_only_processes_of_torchrun_wait() -> None:
    wait_for_all(Shard(1, 2), {"RANK": "1", "WORLD_SIZE": "2"})
    wait_for_all(Shard(), {"TORCHELASTIC_RUN_ID": "none"})
