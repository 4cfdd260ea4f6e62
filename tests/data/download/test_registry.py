"""The table of published data sets: nothing in it is asked for here, but all of it is read."""

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
def test_voc_is_what_torchvision_says(year):
    source = SOURCES[f"voc{year}"]()
    facts = DATASET_YEAR_DICT[str(year)]
    assert source.archives[0].addresses[0] == facts["url"]
    assert source.archives[0].checksum == facts["md5"]
    assert source.root == Path(facts["base_dir"]).as_posix()
    assert [archive.file for archive in source.archives][1:] == (
        ["VOCtest_06-Nov-2007.tar"] if year == 2007 else []
    )


def test_the_file_of_2008_is_not_called_after_2012():
    assert SOURCES["voc2008"]().archives[0].file == "VOCtrainval_14-Jul-2008.tar"


def test_sbd_is_what_torchvision_says():
    assert SOURCES["sbd"]().archives == (Archive((SBDataset.url,), SBDataset.md5),)


def test_the_labels_of_pascal_context_go_beside_the_images_of_voc2010():
    source = SOURCES["pascal-context"]()
    assert source.archives[-1] == SOURCES["voc2010"]().archives[0]
    assert {archive.into for archive in source.archives[:-1]} == {"VOCdevkit/VOC2010"}


def test_only_the_masks_of_coco_stuff_have_no_checksum():
    without = [
        archive.file
        for make in SOURCES.values()
        for archive in make().archives
        if not archive.checksum
    ]
    assert without == ["stuffthingmaps_trainval2017.zip"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_a_person_must_get_has_an_address(name):
    assert name not in SOURCES
    assert "https://" in ELSEWHERE[name]
    assert ELSEWHERE[name].endswith(".")


def test_the_documentation_lists_them_all():
    section = DOCS.partition("## Published datasets")[2].partition("\n## ")[0]
    years = [name for name in SOURCES if name.startswith("voc")]
    assert "`voc2007` to `voc2012`" in section
    for name in (*ELSEWHERE, *SOURCES):
        assert name in years or f"`{name}`" in section
