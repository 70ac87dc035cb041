"""Where the datasets come from: archives, addresses, checksums, and what to request if they may not be redistributed.

Checksums and sizes are those that several public projects check; where there are none, none is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

GB = 10**9


@dataclass(frozen=True)
class Archive:
    """A zip or tar archive and what to take from it.

    Args:
        names: file names that users may have it under; a download gets the first.
        files: a pattern of paths in the archive, matched from the right, and the folder below the dataset's root into
            which its files go. ``{parent}`` stands for the name of their folder in the archive. Other files are left.
        limit: most bytes that its files may have together.
        urls: its mirrors, tried in this order. ``hf://OWNER/NAME/FILE`` is a file of a Hugging Face dataset.
        size: its length in bytes, if known.
        checksum: "sha256:" or "md5:" and its digest, if known.
        request: what a user can do by hand.
    """

    names: tuple[str, ...]
    files: Mapping[str, str]
    limit: int
    urls: tuple[str, ...] = ()
    size: int | None = None
    checksum: str | None = None
    request: str = ""


@dataclass(frozen=True)
class Source:
    """A dataset that can be prepared."""

    reader: str  # the registered dataset that reads the result
    archives: tuple[Archive, ...]  # texts first, so that they are there even if the images are not


def _karpathy(name: str) -> Archive:
    """Karpathy's captions and splits of a dataset."""
    return Archive(
        names=("caption_datasets.zip",),
        files={f"dataset_{name}.json": ""},
        limit=GB,
        urls=(
            "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
            "hf://gpantaz/karpathy_split/caption_datasets.zip",
        ),
    )


def _coco(part: str, size: int, checksum: str) -> Archive:
    """COCO's images of 2014."""
    return Archive(
        names=(f"{part}.zip",),
        files={f"{part}/COCO_{part}_*.jpg": part},
        limit=20 * GB,
        urls=(
            f"https://s3.amazonaws.com/images.cocodataset.org/zips/{part}.zip",
            f"http://images.cocodataset.org/zips/{part}.zip",
            f"hf://GAIA-URJC/COCO_2014/{part}.zip",
        ),
        size=size,
        checksum=checksum,
    )


def _nuswide(name: str, files: Mapping[str, str], copy: str = "") -> Archive:
    """A text archive of NUS-WIDE; ``copy`` is an archive on the hub that holds the same files, if there is one."""
    return Archive(
        names=tuple(dict.fromkeys(filter(None, (f"{name}.zip", copy)))),
        files=files,
        limit=4 * GB,
        urls=(
            f"https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/{name}.zip",
            *((f"hf://Lxyhaha/NUS-WIDE/{copy}",) if copy else ()),
        ),
    )


MIRFLICKR = "https://press.liacs.nl/mirflickr/mirflickr25k.v3b"
SOURCES = {
    "flickr30k": Source(
        "captions",
        (
            _karpathy("flickr30k"),
            Archive(
                names=("flickr30k-images.zip", "flickr30k-images.tar.gz", "flickr30k-images.tar"),
                files={"*.jpg": "flickr30k-images"},
                limit=10 * GB,
                urls=("hf://nlphuji/flickr30k/flickr30k-images.zip",),
                request="run `hf auth login` if the copy at https://huggingface.co/datasets/nlphuji/flickr30k asks for "
                "it, or request the images at https://shannon.cs.illinois.edu/DenotationGraph/",
            ),
        ),
    ),
    "flickr8k": Source(
        "captions",
        (
            _karpathy("flickr8k"),
            Archive(
                names=("Flickr8k_Dataset.zip",),
                files={"*.jpg": "Flicker8k_Dataset"},
                limit=3 * GB,
                request="request it at https://forms.illinois.edu/sec/1713398",
            ),
        ),
    ),
    "coco": Source(
        "captions",
        (
            _karpathy("coco"),
            _coco(
                "train2014", 13_510_573_713, "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"
            ),
            _coco("val2014", 6_645_013_297, "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
        ),
    ),
    "mirflickr25k": Source(
        "mirflickr25k",
        (
            Archive(
                names=("mirflickr25k_annotations_v080.zip",),
                files={"*.txt": "mirflickr25k_annotations_v080"},
                limit=GB,
                urls=(f"{MIRFLICKR}/mirflickr25k_annotations_v080.zip",),
            ),
            Archive(
                names=("mirflickr25k.zip",),
                files={
                    "im*.jpg": "mirflickr",
                    "meta/tags/tags*.txt": "mirflickr/meta/tags",
                    "doc/common_tags.txt": "mirflickr/doc",
                },
                limit=6 * GB,
                urls=(f"{MIRFLICKR}/mirflickr25k.zip",),
                size=3_069_184_257,
                checksum="md5:a23d0a8564ee84cda5622a6c2f947785",
            ),
        ),
    ),
    "nuswide": Source(
        "nuswide",
        (
            _nuswide("ImageList", {"Imagelist.txt": "ImageList"}),
            _nuswide("ConceptsList", {"Concepts81.txt": "ConceptsList"}, "NUS-WIDE.zip"),
            _nuswide("Groundtruth", {"AllLabels/Labels_*.txt": "Groundtruth/AllLabels"}, "NUS-WIDE.zip"),
            _nuswide(
                "NUS_WID_Tags",
                dict.fromkeys(("All_Tags.txt", "AllTags1k.txt", "TagList1k.txt"), "NUS_WID_Tags"),
                "NUS_WID_Tags.zip",
            ),
            Archive(
                names=("Flickr.zip", "Flickr.tar.gz", "Flickr.tar"),
                files={"*/*_*.jpg": "Flickr/{parent}"},
                limit=200 * GB,
                request="send the agreement form of "
                "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
            ),
        ),
    ),
}
