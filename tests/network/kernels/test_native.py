"""The compiled library itself: threads, sizes of every kind, and the messages if it is missing.
test_dispatch.py compares it with the definition."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullconv.core.errors import FullconvError
from fullconv.geometry.grid import Grid
from fullconv.network.kernels import dispatch, library, native, reference
from fullconv.network.kernels.reference import LossOptions

built = pytest.mark.skipif(
    not native.available(), reason="no C++ compiler when the package was installed"
)


def test_a_compiler_makes_them() -> None:
    """Where there is one, kernels that do not compile are a failure, not a reason to skip."""
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    assert native.available()


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@built
def test_the_number_of_threads_changes_nothing(threads: None) -> None:
    generator = torch.Generator().manual_seed(0)
    values = 5 * torch.randn(3, 12, 11, 9, generator=generator)
    target = torch.randint(0, 12, (3, 83, 70), generator=generator)
    grid, size = Grid(8, 3.5), (83, 70)
    expected = None
    for count in (1, 2, 3, 8):
        torch.set_num_threads(count)
        total, weight, gradient = native.loss_and_gradient(
            values, grid, target, LossOptions(label_smoothing=0.1), gradient=True
        )
        assert torch.get_num_threads() == count
        results = [total, weight, gradient, native.labels(values, grid, size)]
        results.append(native.confidence(values, grid, size))
        expected = expected or results
        for ours, theirs in zip(results, expected, strict=True):
            assert torch.equal(ours, theirs)


@built
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    cells=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    stride=st.integers(1, 32),
    offset=st.integers(-80, 80),
    classes=st.integers(1, 40),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    smoothing=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 100),
)
@settings(max_examples=150)
def test_any_size_stride_and_offset(
    size: tuple[int, int],
    cells: tuple[int, int],
    stride: int,
    offset: int,
    classes: int,
    scale: float,
    smoothing: float,
    seed: int,
) -> None:
    """Against the reference in float64."""
    generator = torch.Generator().manual_seed(seed)
    values = scale * torch.randn(1, classes, *cells, generator=generator)
    target = torch.randint(0, classes, (1, *size), generator=generator, dtype=torch.uint8)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    grid = Grid(stride, offset / 2)
    options = LossOptions(255, torch.rand(classes), smoothing)
    total, weight, gradient = native.loss_and_gradient(values, grid, target, options, True)
    expected = reference.loss_and_gradient(values.double(), grid, target, options, True)
    unit = max(1.0, scale)
    assert total.item() == pytest.approx(expected[0].item(), rel=1e-5, abs=1e-5 * unit)
    assert weight.item() == pytest.approx(expected[1].item(), rel=1e-6)
    # Where scores are in the ten thousands, float32 places a border between classes less exactly.
    allowed = 3e-7 * max(1.0, weight.item()) * (1e3 if scale > 100 else 1)
    assert (gradient - expected[2]).abs().max() <= allowed
    full = reference.full(values.double(), grid, size)
    ids = native.labels(values, grid, size)
    chosen = full.gather(1, ids.long()[:, None])[:, 0]
    assert (full.amax(dim=1) - chosen).max() <= 1e-6 * unit


@built
def test_no_more_memory_than_a_few_rows() -> None:
    """300 classes at 700 x 900 pixels would be 756 MB of scores; a limit of 60 MB is enough."""
    code = (
        "import resource, torch\n"
        "from fullconv.geometry.trace_network import Grid\n"
        "from fullconv.network.kernels import native, reference\n"
        "values = torch.zeros(1, 300, 88, 113)\n"
        "target = torch.zeros(1, 700, 900, dtype=torch.uint8)\n"
        "native.labels(values[..., :2, :2], Grid(8, 0), (9, 9))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "native.loss_and_gradient(values, Grid(8, 0), target, reference.LossOptions(), True)\n"
        "native.labels(values, Grid(8, 0), (700, 900))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60


@built
def test_instructions_are_chosen_and_named() -> None:
    now = native.instructions()
    assert now in native.INSTRUCTIONS
    assert native.instructions("baseline") == "baseline"
    assert native.instructions(now) == now


def test_its_absence_is_said_once_and_torch_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "load_library", lambda: (None, "no compiler"))
    monkeypatch.delenv(library.VARIABLE, raising=False)
    native._print_missing_note.cache_clear()
    values = torch.randn(1, 3, 2, 2)
    for _ in range(2):
        ids = dispatch.labels(values, Grid(8, 0), (9, 9))
    assert torch.equal(ids, reference.labels(values, Grid(8, 0), (9, 9)))
    message_text = capsys.readouterr().err
    assert message_text.count("\n") == 1
    assert "no compiled kernels (no compiler)" in message_text
    assert "several times slower" in message_text
    assert "pip install --force-reinstall --no-deps --editable CLONE" in message_text
    native._print_missing_note.cache_clear()


def test_its_absence_is_an_error_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "load_library", lambda: (None, "no compiler"))
    monkeypatch.setenv(library.VARIABLE, "native")
    message = "compiled kernels were requested but are not"
    with pytest.raises(FullconvError, match=message) as caught:
        dispatch.labels(torch.zeros(1, 2, 2, 2), Grid(8, 0), (9, 9))
    assert "export FULLCONV_KERNELS=reference" in caught.value.hint


@built
def test_a_image_without_pixels() -> None:
    values = torch.zeros(0, 3, 2, 2)
    assert native.labels(values, Grid(8, 0), (9, 9)).shape == (0, 9, 9)
    loss = dispatch.loss(values, Grid(8, 0), torch.zeros(0, 9, 9, dtype=torch.uint8))
    assert loss.item() == 0
