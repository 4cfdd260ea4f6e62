from __future__ import annotations

from fullconv.errors import FullconvError


def test_the_hint_stands_below_the_message() -> None:
    error = FullconvError("no folder 'x'.", "fullconv check data")
    assert str(error) == "no folder 'x'.\n  try: fullconv check data"
    assert (error.message, error.hint) == ("no folder 'x'.", "fullconv check data")


def test_without_a_hint_nothing_is_added() -> None:
    assert str(FullconvError("no folder 'x'.")) == "no folder 'x'."
