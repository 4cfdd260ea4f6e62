"""Who does what where several processes share a job."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import cpu_count
from fullconv.inference.sharding import Shard, current_shard, wait_for_all

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "1"}


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_image_falls_to_one_process(count: int, of: int) -> None:
    parts = [Shard(rank, of).part(range(count)) for rank in range(of)]
    assert sorted(chain(*parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_place_is_what_torchrun_or_srun_says() -> None:
    assert current_shard({}) == Shard(0, 1)
    assert current_shard({"RANK": "3"}) == Shard(0, 1)  # somebody else's word
    assert current_shard(TORCHRUN) == Shard(5, 8, 1, 4)
    assert current_shard({"RANK": "1", "WORLD_SIZE": "2"}) == Shard(1, 2)
    assert current_shard(SRUN) == Shard(2, 3, 1)
    assert current_shard({**SRUN, **TORCHRUN}) == Shard(5, 8, 1, 4)  # torchrun below srun


def test_a_batch_script_may_be_alone_whatever_slurm_says() -> None:
    first = {**SRUN, "SLURM_PROCID": "0"}
    assert current_shard(first).alone
    assert not current_shard({**first, "SLURM_STEP_NUM_TASKS": "3"}).alone
    assert not current_shard({**first, "SLURM_NTASKS": "1"}).alone
    assert not current_shard(SRUN).alone


@pytest.mark.parametrize(
    ("environ", "said", "hint"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 WORLD_SIZE=2; expected a", "unset RANK WORLD_S"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1 WORLD_SIZE=2", "unset RANK"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK=one WORLD_SIZE=2", ""),
        ({**SRUN, "SLURM_NTASKS": "many"}, "SLURM_PROCID=2 SLURM_NTASKS=many", "unset SLURM_PR"),
        ({**TORCHRUN, "LOCAL_RANK": ""}, "LOCAL_RANK= LOCAL_WORLD_SIZE=4", ""),
        ({**SRUN, "SLURM_LOCALID": "x"}, "SLURM_LOCALID=x", "unset SLURM_LOCALID"),
    ],
)
def test_a_place_that_makes_no_sense(environ: dict[str, str], said: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        current_shard(environ)
    assert f"the environment says {said}" in caught.value.message
    assert hint in caught.value.hint


def test_threads_are_divided_on_a_machine_unless_somebody_said_how_many() -> None:
    half = max(1, cpu_count() // 2)
    assert Shard(0, 2, 0, 2).threads({}) == half
    assert Shard(0, 2, 0, 10_000).threads({}) == 1
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}  # its own word
    assert Shard(0, 2, 0, 2).threads(torchrun) == half
    assert Shard(0, 2, 0, 2).threads({**torchrun, "OMP_NUM_THREADS": "3"}) is None
    assert Shard(0, 2, 0, 2).threads({"OMP_NUM_THREADS": "1"}) is None
    assert Shard().threads({}) is None
    assert Shard(0, 2).threads({}) is None  # on how many machines, nobody says


def test_threads_are_told_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Shard().use_threads()
    Shard(0, 2, 0, 10_000).use_threads()
    assert told == [1]


@pytest.mark.parametrize(
    ("share", "count", "device"),
    [
        (Shard(5, 8, 1, 4), 4, "cuda:1"),
        (Shard(5, 8, 3, 4), 1, "cuda:0"),  # each sees one of its own
        (Shard(5, 8, 1, 4), 0, "auto"),
        (Shard(), 4, "auto"),
    ],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, share: Shard, count: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert share.device() == device


def test_nobody_waits_who_was_not_started_by_torchrun() -> None:
    wait_for_all(Shard(1, 2), {"RANK": "1", "WORLD_SIZE": "2"})
    wait_for_all(Shard(), {"TORCHELASTIC_RUN_ID": "none"})
