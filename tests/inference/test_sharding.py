"""Who does what where several processes share a job."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullconv.core.errors import FullconvError
from fullconv.core.hardware import processors
from fullconv.inference.sharding import Share, share_of, wait_for_the_others

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_LOCALID": "1"}


@given(st.integers(0, 40), st.integers(1, 9))
def test_every_image_falls_to_one_process(count: int, of: int) -> None:
    parts = [Share(rank, of).part(range(count)) for rank in range(of)]
    assert sorted(chain(*parts)) == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_place_is_what_torchrun_or_srun_says() -> None:
    assert share_of({}) == Share(0, 1)
    assert share_of({"RANK": "3"}) == Share(0, 1)  # somebody else's word
    assert share_of(TORCHRUN) == Share(5, 8, 1, 4)
    assert share_of({"RANK": "1", "WORLD_SIZE": "2"}) == Share(1, 2)
    assert share_of(SRUN) == Share(2, 3, 1)
    assert share_of({**SRUN, **TORCHRUN}) == Share(5, 8, 1, 4)  # torchrun below srun


def test_a_batch_script_may_be_alone_whatever_slurm_says() -> None:
    first = {**SRUN, "SLURM_PROCID": "0"}
    assert share_of(first).alone
    assert not share_of({**first, "SLURM_STEP_NUM_TASKS": "3"}).alone
    assert not share_of({**first, "SLURM_NTASKS": "1"}).alone
    assert not share_of(SRUN).alone


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
        share_of(environ)
    assert f"the environment says {said}" in caught.value.message
    assert hint in caught.value.hint


def test_threads_are_divided_on_a_machine_unless_somebody_said_how_many() -> None:
    half = max(1, processors() // 2)
    assert Share(0, 2, 0, 2).threads({}) == half
    assert Share(0, 2, 0, 10_000).threads({}) == 1
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}  # its own word
    assert Share(0, 2, 0, 2).threads(torchrun) == half
    assert Share(0, 2, 0, 2).threads({**torchrun, "OMP_NUM_THREADS": "3"}) is None
    assert Share(0, 2, 0, 2).threads({"OMP_NUM_THREADS": "1"}) is None
    assert Share().threads({}) is None
    assert Share(0, 2).threads({}) is None  # on how many machines, nobody says


def test_threads_are_told_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    Share().use_threads()
    Share(0, 2, 0, 10_000).use_threads()
    assert told == [1]


@pytest.mark.parametrize(
    ("share", "count", "device"),
    [
        (Share(5, 8, 1, 4), 4, "cuda:1"),
        (Share(5, 8, 3, 4), 1, "cuda:0"),  # each sees one of its own
        (Share(5, 8, 1, 4), 0, None),
        (Share(), 4, None),
    ],
)
def test_each_process_of_a_machine_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, share: Share, count: int, device: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert share.device() == device


def test_nobody_waits_who_was_not_started_by_torchrun() -> None:
    wait_for_the_others(Share(1, 2), {"RANK": "1", "WORLD_SIZE": "2"})
    wait_for_the_others(Share(), {"TORCHELASTIC_RUN_ID": "none"})
