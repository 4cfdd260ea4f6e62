from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.cli.main import run
from fullconv.core.errors import FullconvError
from fullconv.training.initial_model import require_backbone


@pytest.mark.parametrize(
    "name", ["resnet18", "timm:resnet18", "resnet18.a1_in1k", "torchvision:vgg16", "else:a"]
)
def test_names_that_are_known_or_left_to_others(name: str) -> None:
    require_backbone(name)


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("resnet1", "timm has no network 'resnet1'; the nearest are resnet18, ", "resnet18"),
        ("mobilnetv2_100", "timm has no network", "mobilenetv2_100"),
        ("torchvision:resnt18", "torchvision has no network 'resnt18'", "torchvision:resnet18"),
        ("????", "timm has no network '????'.", "resnet18"),
    ],
)
def test_a_misspelt_name_gets_the_nearest(name: str, said: str, hint: str) -> None:
    with pytest.raises(FullconvError) as caught:
        require_backbone(name)
    assert caught.value.message.startswith(said)
    assert caught.value.hint == f"--backbone {hint}"


def test_a_card_with_a_misspelt_name(tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('source = "torchvision"\nname = "resnt18"\n')
    with pytest.raises(FullconvError, match="torchvision has no network 'resnt18'") as caught:
        require_backbone(str(card))
    assert caught.value.hint == f'name = "resnet18"   # in {card}'
    with pytest.raises(FullconvError, match="no backbone card at"):
        require_backbone(str(tmp_path / "gone.toml"))


def test_it_is_said_before_the_data_are_looked_at(
    scenes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the data were looked at")

    monkeypatch.setattr("fullconv.data.check.check.scan_pair", never)
    assert run(["train", str(scenes), "--backbone", "resnet1"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "  try: --backbone resnet18")
