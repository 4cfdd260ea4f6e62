from __future__ import annotations

import pytest

from fullconv.core.errors import FullconvError
from fullconv.core.labels import Labels, format_color, is_background, parse_color, voc_color


def test_the_voc_palette_is_the_published_one() -> None:
    first = [voc_color(i) for i in range(5)]
    assert first == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert voc_color(20) == (0, 64, 128)
    assert len({voc_color(i) for i in range(256)}) == 256


def test_colors_go_to_text_and_back() -> None:
    assert parse_color("#80Ff00") == parse_color("80ff00") == (128, 255, 0)
    assert format_color((128, 255, 0)) == "#80ff00"


@pytest.mark.parametrize("text", ["red", "#12345", "#1234567", "#12345g", "#-12345", ""])
def test_a_bad_color_is_named(text: str) -> None:
    with pytest.raises(FullconvError, match="not of the form '#rrggbb'") as caught:
        parse_color(text)
    assert repr(text) in caught.value.message


def test_a_background_is_known_by_its_name() -> None:
    names = "background _background_ __Background__ BG others void unlabelled"
    assert all(is_background(name) for name in names.split())
    assert not any(is_background(n) for n in ("sky", "background building", "class 0", ""))


def test_a_black_background_is_transparent() -> None:
    names = ("road", "Background", "other", "hole")
    black = (0, 0, 0)
    assert Labels(names, ((128, 64, 128), black, black, black)).transparent_ids == (1, 2)
    assert Labels(names, (black, (1, 0, 0), (0, 0, 9), black)).transparent_ids == ()
    assert Labels(("background", "crack")).to_list() == [
        {"id": 0, "name": "background", "color": (0, 0, 0), "painted": False},
        {"id": 1, "name": "crack", "color": (128, 0, 0), "painted": True},
    ]


def test_a_value_means_what_is_listed_then_itself() -> None:
    labels = Labels(("sky", "road"), values={7: 1, 1: 0, (9, 9, 9): 255})
    assert [labels.class_of(v) for v in (0, 1, 7, 255, 2, -1)] == [0, 0, 1, 255, None, None]
    assert labels.class_of((9, 9, 9)) == 255
    assert labels.class_of((128, 0, 0)) == 1  # the color of class 1
    assert labels.class_of((1, 2, 3)) is None


def test_a_closed_table_knows_only_what_is_listed() -> None:
    labels = Labels(("membrane", "cell"), values={0: 0, 255: 1}, strict_values=True)
    assert [labels.class_of(v) for v in (0, 1, 255)] == [0, None, 1]


def test_names_have_ids_and_ignore_has_one() -> None:
    labels = Labels(("sky", "road"))
    assert (labels.index("road"), labels.index("ignore")) == (1, 255)
    assert len(labels) == labels.num_classes == 2
    message = "there is no class 'rode'; the classes are sky, road"
    with pytest.raises(FullconvError, match=message) as caught:
        labels.index("rode")
    assert caught.value.hint == '"road"'


def test_a_model_keeps_names_colors_and_ignore_but_no_file_values() -> None:
    labels = Labels(("sky", "road"), ((1, 2, 3), (4, 5, 6)), ignore_index=99, values={7: 1})
    again = Labels.from_dict(labels.to_dict())
    assert again == Labels(("sky", "road"), ((1, 2, 3), (4, 5, 6)), ignore_index=99)
    assert Labels.from_dict({"classes": ["a", "b"]}) == Labels(("a", "b"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((),), "has no classes"),
        ((("a", "a"),), "must be unique"),
        ((("a", "ignore"),), "must not be 'ignore'"),
        ((("a", "b"), ((0, 0, 0),)), "2 classes but 1 colors"),
        ((("a", "b"), (), 1), "ignore_index 1 is also the id of class 'b'"),
    ],
)
def test_a_table_that_cannot_be_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(FullconvError, match=message):
        Labels(*arguments)


@pytest.mark.parametrize(("count", "hint"), [(255, 255), (256, 65535), (300, 65535)])
def test_the_hint_for_a_taken_ignore_index_is_a_free_one(count: int, hint: int) -> None:
    names = tuple(map(str, range(count)))
    with pytest.raises(FullconvError) as caught:
        Labels(names, ignore_index=count - 1)
    assert caught.value.hint == f"ignore_index = {hint}"
    assert Labels(names, ignore_index=hint).ignore_index == hint
