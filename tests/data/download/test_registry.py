"""The table of published datasets: nothing is downloaded here, but all entries are read."""

import re
from pathlib import Path

import pytest
from torchvision.datasets import SBDataset
from torchvision.datasets.voc import DATASET_YEAR_DICT

from fullconv.data.download.registry import ELSEWHERE, SOURCES, Archive

DOCS = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_every_entry_is_whole(name):
    source = SOURCES[name]()
    assert name == name.lower()
    assert "_" not in name
    assert source.archives
    assert re.fullmatch(r"https?://\S+", source.page)
    for archive in source.archives:
        assert all(re.fullmatch(r"https?://\S+[^/]", address) for address in archive.addresses)
        assert re.fullmatch(r"[\w.-]+\.(tar|tgz|tar\.gz|zip|txt)", archive.file)
        if archive.checksum is not None:
            assert re.fullmatch(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}", archive.checksum)
    assert len({archive.file for archive in source.archives}) == len(source.archives)
    for path in (source.root, *(archive.into for archive in source.archives)):
        assert ".." not in path
        assert not path.startswith("/")


@pytest.mark.parametrize("year", range(2007, 2013))
def test_voc_is_that_of_torchvision(year):
    source = SOURCES[f"voc{year}"]()
    facts = DATASET_YEAR_DICT[str(year)]
    assert source.archives[0].addresses[0] == facts["url"]
    assert source.archives[0].checksum == facts["md5"]
    assert source.root == Path(facts["base_dir"]).as_posix()
    more = ["VOCtest_06-Nov-2007.tar"] if year == 2007 else []
    assert [archive.file for archive in source.archives][1:] == more


def test_single_entries():
    sbd, context = SOURCES["sbd"]().archives, SOURCES["pascal-context"]().archives
    assert SOURCES["voc2008"]().archives[0].file == "VOCtrainval_14-Jul-2008.tar"  # not of 2012
    assert sbd == (Archive((SBDataset.url,), SBDataset.md5),)
    assert context[-1] == SOURCES["voc2010"]().archives[0]
    assert {archive.into for archive in context[:-1]} == {"VOCdevkit/VOC2010"}


def test_only_the_masks_of_coco_stuff_have_no_checksum():
    archives = [archive for make in SOURCES.values() for archive in make().archives]
    without = [archive.file for archive in archives if not archive.checksum]
    assert without == ["stuffthingmaps_trainval2017.zip"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_dataset_that_cannot_be_downloaded_has_an_address(name):
    assert name not in SOURCES
    assert "https://" in ELSEWHERE[name]
    assert ELSEWHERE[name].endswith(".")


def test_the_documentation_lists_them_all():
    section = DOCS.partition("## Published datasets")[2].partition("\n## ")[0]
    years = [name for name in SOURCES if name.startswith("voc")]
    assert "`voc2007` to `voc2012`" in section
    for name in (*ELSEWHERE, *SOURCES):
        assert name in years or f"`{name}`" in section
