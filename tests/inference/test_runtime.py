"""The prepared network computes the same as the model, in float32, bfloat16 and compiled."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.inference import runtime
from fullconv.inference.runtime import Runtime, computes_in_bfloat16, label_disagreement
from fullconv.models.model import Model, load_model, save_model

CPU = torch.device("cpu")
MakeModel = Callable[..., Model]


def images(count: int = 2, size: tuple[int, int] = (70, 90)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)


@pytest.fixture
def model(make_model: MakeModel) -> Model:
    """A model whose scores differ from class to class."""
    model = make_model()
    for score in model.network.score.values():
        nn.init.normal_(score.weight, std=0.1)
    return model


def test_float32_computes_the_scores_of_the_network(model: Model) -> None:
    prepared = Runtime(model, device=CPU, precision="float32")
    with torch.inference_mode():
        expected = model.network(model.normalize(images())).values
    difference = (prepared.scores(images()).values - expected).abs().max()
    assert difference <= 1e-5 * expected.abs().max()
    assert re.fullmatch(
        r"float32 \(as requested\), \d+ batch norms folded, channels-last", prepared.describe()
    )
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.network.modules())  # unchanged


def test_bfloat16_is_close_and_its_scores_are_float32(model: Model) -> None:
    runtimes = [Runtime(model, device=CPU, precision=p) for p in ("float32", "bfloat16")]
    exact, rounded = (prepared.scores(images()) for prepared in runtimes)
    assert rounded.values.dtype == torch.float32
    difference = (rounded.values - exact.values).abs().max()
    assert 0 < difference <= 0.05 * exact.values.abs().max()
    assert next(model.network.backbone.parameters()).dtype == torch.float32
    share = float((exact.labels() != rounded.labels()).double().mean())
    assert label_disagreement(*runtimes, images()) == pytest.approx(share, abs=1e-3)
    assert label_disagreement(*runtimes, []) == 0


@pytest.mark.parametrize(
    ("share", "has_instructions", "precision", "reason"),
    [
        (None, True, "float32", "bfloat16 was not compared when this model was trained"),
        (0.002, True, "bfloat16", "0.20% of the pixels compared in training get another label"),
        (0.02, True, "float32", "2.00% of the pixels compared .* more than 1%"),
        (0.002, False, "float32", "this cpu has no bfloat16 instructions"),
    ],
)
def test_auto_chooses_by_the_share_that_the_saved_model_records(
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    share: float | None,
    has_instructions: bool,
    precision: str,
    reason: str,
) -> None:
    monkeypatch.setattr(runtime, "computes_in_bfloat16", lambda _: has_instructions)
    model = make_model()
    model.bfloat16_disagreement = share
    save_model(model, tmp_path / "model")
    prepared = Runtime(load_model(tmp_path / "model"), device=CPU)
    assert prepared.precision == precision
    assert re.search(reason, prepared.describe())


def test_devices_without_bfloat16() -> None:
    assert computes_in_bfloat16(torch.device("meta")) is False
    assert isinstance(computes_in_bfloat16(CPU), bool)


@pytest.mark.slow
def test_compiled_it_computes_the_same(model: Model) -> None:
    plain = Runtime(model, device=CPU, precision="float32")
    compiled = Runtime(model, device=CPU, precision="float32", compile=True)
    assert compiled.describe().endswith("torch.compile")
    for size in ((70, 90), (33, 50)):  # the second size is compiled again
        expected = plain.scores(images(1, size)).values
        try:
            actual = compiled.scores(images(1, size)).values
        except FullconvError as error:
            pytest.skip(error.message)
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_network_that_cannot_be_compiled(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = Runtime(make_model(), device=CPU, compile=True)

    def fail(*_: object) -> None:
        from torch._inductor.exc import InvalidCxxCompiler

        raise InvalidCxxCompiler

    monkeypatch.setattr(prepared.network.backbone.pyramid, "forward", fail)
    with pytest.raises(FullconvError, match=r"torch\.compile could not compile this network"):
        prepared.scores(images(1))
