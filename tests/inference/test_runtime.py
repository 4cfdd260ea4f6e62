from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fullconv.core.errors import FullconvError
from fullconv.inference import runtime as engine
from fullconv.inference.runtime import Runtime, computes_in_bfloat16, label_disagreement
from fullconv.models.model import Model, load_model, save_model

CPU = torch.device("cpu")


def images(count: int = 2, size: tuple[int, int] = (70, 90)) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, *size), generator=generator, dtype=torch.uint8)


def as_trained(model: Model) -> Model:
    """With scores that differ from class to class."""
    for score in model.network.score.values():
        nn.init.normal_(score.weight, std=0.1)
    model.network.eval()
    return model


def test_single_precision_gives_the_network_s_own_scores(make_model: Callable[..., Model]) -> None:
    model = as_trained(make_model())
    ready = Runtime(model, device=CPU, precision="float32")
    with torch.inference_mode():
        theirs = model.network(model.normalize(images())).values
    ours = ready.scores(images()).values
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert "as asked for" in ready.describe()
    assert "batch norms folded, channels last" in ready.describe()
    # The model itself stays as it was trained.
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.network.modules())


def test_half_precision_is_close_and_its_scores_are_single(
    make_model: Callable[..., Model],
) -> None:
    model = as_trained(make_model())
    exact = Runtime(model, device=CPU, precision="float32").scores(images()).values
    half = Runtime(model, device=CPU, precision="bfloat16").scores(images()).values
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().max() <= 0.05 * exact.abs().max()
    assert next(model.network.backbone.parameters()).dtype == torch.float32


def test_the_share_of_other_labels_is_counted(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_trained(make_model())
    engines = [Runtime(model, device=CPU, precision=p) for p in ("float32", "bfloat16")]
    share = label_disagreement(*engines, images())
    one, two = (ready.scores(images()).labels() for ready in engines)
    assert share == pytest.approx(float((one != two).double().mean()), abs=1e-3)
    assert label_disagreement(*engines, []) == 0


@pytest.mark.parametrize(
    ("share", "able", "precision", "reason"),
    [
        (None, True, "float32", "were not compared when this model was trained"),
        (0.002, True, "bfloat16", "0.20% of the pixels compared in training get another label"),
        (0.02, True, "float32", "2.00% of the pixels compared .* more than 1%"),
        (0.002, False, "float32", "this cpu has no bfloat16 instructions"),
    ],
)
def test_what_is_chosen_and_why(
    make_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    share: float | None,
    able: bool,
    precision: str,
    reason: str,
) -> None:
    """From what the model says of itself, also when it was saved and read again."""
    monkeypatch.setattr(engine, "computes_in_bfloat16", lambda _: able)
    model = make_model()
    model.bfloat16_disagreement = share
    save_model(model, tmp_path / "model")
    ready = Runtime(load_model(tmp_path / "model"), device=CPU)
    assert ready.precision == precision
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(ready.describe())


def test_a_precision_that_does_not_exist(make_model: Callable[..., Model]) -> None:
    with pytest.raises(FullconvError, match="precision 'half' is not known; there are auto"):
        Runtime(make_model(), device=CPU, precision="half")


def test_a_device_without_the_instructions_says_so() -> None:
    assert computes_in_bfloat16(torch.device("meta")) is False
    assert isinstance(computes_in_bfloat16(CPU), bool)


def test_compiled_it_gives_the_same(make_model: Callable[..., Model]) -> None:
    model = as_trained(make_model())
    plain = Runtime(model, device=CPU, precision="float32")
    compiled = Runtime(model, device=CPU, precision="float32", compile=True)
    assert compiled.describe().endswith("torch.compile")
    for size in ((70, 90), (33, 50)):  # the second size is compiled anew
        theirs = plain.scores(images(1, size)).values
        try:
            ours = compiled.scores(images(1, size)).values
        except FullconvError as error:
            pytest.skip(error.message)
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_a_network_that_cannot_be_compiled(
    make_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Runtime(make_model(), device=CPU, compile=True)

    def fail(*_: object) -> None:
        from torch._inductor.exc import InvalidCxxCompiler

        raise InvalidCxxCompiler

    monkeypatch.setattr(ready.network.backbone.pyramid, "forward", fail)
    with pytest.raises(FullconvError, match=r"torch\.compile could not compile this network"):
        ready.scores(images(1))
