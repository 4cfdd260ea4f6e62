"""dataset.toml is read back as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullconv.core.labels import Labels
from fullconv.data.layouts.class_table import read_labels
from fullconv.data.layouts.settings_file import read_settings, write_settings


@pytest.mark.parametrize("colors", [True, False])
def test_written_settings_are_read_back(tmp_path: Path, colors: bool) -> None:
    palette = ((1, 2, 3), (4, 5, 6)) if colors else ()
    labels = Labels(("a b", "é"), palette, 254)
    write_settings(tmp_path, labels, colors=colors)
    values = {(1, 2, 3): 0, (4, 5, 6): 1} if colors else {}
    read = read_labels(tmp_path, read_settings(tmp_path), []).labels
    assert read == Labels(("a b", "é"), palette, 254, values)
    (tmp_path / "dataset.toml").unlink()
    assert read_settings(tmp_path) == {}
