"""The Triton programs compile for GPUs, which needs none: `cuda` launches them here as far as the
GPU. test_dispatch.py compares what they compute with the definition."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fullconv.geometry.grid import Grid
from fullconv.network.kernels import cuda
from fullconv.network.kernels.reference import LossOptions

LAUNCHES = {"labels": 1, "confidence": 1, "loss": 1, "gradient": 4}


class Programs:
    """In place of `cuda_kernels`: notes what Triton would compile, by program."""

    INSTALLED = INTERPRETED = True

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)
        self.noted: dict[str, list[tuple[Any, ...]]] = {name: [] for name in LAUNCHES}

    def __getattr__(self, name: str) -> Any:
        from triton.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        from fullconv.network.kernels import triton_kernels as cuda_kernels

        program = getattr(cuda_kernels, name)
        backend = make_backend(self.target)
        bind = create_function_from_signature(program.signature, program.params, backend)

        def launch(*arguments: Any, **constants: Any) -> None:
            constants |= {"debug": False}
            bound, types, options = bind(*arguments, **constants)
            packed = program._pack_args(backend, constants, bound, types, options)
            self.noted[name].append((program, *packed))

        class Launcher:
            def __getitem__(self, programs: tuple[int]) -> Any:
                assert programs[0] > 0
                return launch

        return Launcher()


def launched(
    monkeypatch: pytest.MonkeyPatch,
    capability: int = 90,
    values: torch.Size | tuple[int, ...] = (2, 21, 7, 9),
    size: tuple[int, int] = (51, 63),
) -> dict[str, list[tuple[Any, ...]]]:
    triton = pytest.importorskip("triton", reason="there is no Triton for this system")
    if triton.knobs.runtime.interpret:
        pytest.skip("Triton interprets in this process")
    if "nvidia" not in triton.backends.backends:
        pytest.skip("this Triton compiles for no NVIDIA GPU")
    programs = Programs(capability)
    monkeypatch.setattr(cuda, "cuda_kernels", lambda: programs)
    scores, grid = torch.zeros(values), Grid(8, 3.5)
    cuda.labels(scores, grid, size)
    cuda.confidence(scores, grid, size)
    target = torch.zeros(values[0], *size, dtype=torch.int64)
    options = LossOptions(values[1] % 2, None, 0.1)
    cuda.loss_and_gradient(scores, grid, target, options, gradient=True)
    return programs.noted


@pytest.mark.parametrize("name", LAUNCHES)
@pytest.mark.parametrize("capability", [75, 90])
def test_it_compiles(
    name: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a T4 and an H100, and without atomic additions, whose order would be left to chance."""
    triton = pytest.importorskip("triton", reason="there is no Triton for this system")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    launches = launched(monkeypatch, capability)
    assert {of: len(calls) for of, calls in launches.items()} == LAUNCHES
    program, options, signature, constants, attributes = launches[name][0]
    source = triton.compiler.ASTSource(program, signature, constants, attributes)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    compiled = triton.compile(source, target=target, options=options.__dict__)
    assert compiled.asm["cubin"]
    assert not re.search(r"\b(atom|red)\.", compiled.asm["ptx"])


def test_it_is_compiled_once_for_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on images of many sizes would wait for the compiler again and again."""
    usual = launched(monkeypatch)
    for values, size in (((1, 17, 1, 1), (1, 1)), ((8, 32, 64, 64), (512, 512))):
        for name, calls in launched(monkeypatch, values=values, size=size).items():
            for call in calls:
                assert call == usual[name][0], name


def test_without_triton_it_can_still_be_imported() -> None:
    """Doctests import every module, on every system."""
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from fullconv.network.kernels import triton_kernels\n"
        "assert not triton_kernels.INSTALLED\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
