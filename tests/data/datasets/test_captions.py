import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from layouts import karpathy_entries, numbers_of, write_image, write_karpathy, write_lines

from itmbench.data.corpus import Corpus
from itmbench.data.datasets import Flickr30KTokens, KarpathyCaptions
from itmbench.errors import InputError
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol, protocol_for


def read(root: Path, **options: Any) -> Corpus:
    return KarpathyCaptions(root, **options).read()


def counts(corpus: Corpus) -> dict[str, tuple[int, int | None]]:
    return {count.what: (count.found, count.published) for count in corpus.counts}


def test_every_caption_belongs_to_its_image_and_split(tmp_path: Path) -> None:
    entries = karpathy_entries()
    del entries[0]["sentences"][1]["raw"]  # the tokens replace it
    corpus = read(write_karpathy(tmp_path, entries))
    assert (corpus.name, read(tmp_path, name="other").name) == ("small", "other")
    assert list(corpus.image_ids) == [f"{row}.jpg" for row in range(6)]
    assert list(corpus.text_ids) == [str(i) for i in range(100, 113)]
    assert (corpus.texts[1], corpus.texts[4]) == ("caption 101", "Caption 104.")
    assert corpus.text_to_image.tolist() == [0, 0, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5]
    assert corpus.train.tolist() == [0, 2]
    assert corpus.stages["val"].queries.tolist() == corpus.stages["val"].gallery.tolist() == [3, 5]
    assert corpus.stages["test"].queries.tolist() == corpus.stages["test"].gallery.tolist() == [1, 4]
    assert numbers_of(corpus.images) == [0, 1, 2, 3, 4, 5]
    assert counts(corpus)["captions"] == (13, None)
    source = tmp_path / "dataset_small.json"
    (tmp_path / "dataset_small.json.gz").write_bytes(gzip.compress(source.read_bytes()))
    source.unlink()
    assert read(tmp_path).fingerprint == corpus.fingerprint


@pytest.mark.parametrize("images", ["images", "."])
def test_coco_has_subfolders_and_restval_trains(tmp_path: Path, images: str) -> None:
    entries = karpathy_entries()
    for entry in entries:
        entry["filepath"] = "train2014" if entry["split"] == "train" else "val2014"
    entries[3]["split"] = "restval"
    corpus = read(write_karpathy(tmp_path, entries, images))
    assert corpus.train.tolist() == [0, 2, 3]
    assert numbers_of(corpus.images) == [0, 1, 2, 3, 4, 5]


def test_images_may_be_elsewhere_or_absent(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path / "texts", karpathy_entries(), images="../pixels")
    assert read(root).images is None
    assert numbers_of(read(root, images=tmp_path / "pixels").images) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(InputError, match="nowhere"):
        read(root, images=tmp_path / "nowhere")


def test_truth_and_hard_negatives(tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    plain = read(root)
    assert plain.true_images is None and plain.hard_negatives is None
    (root / "truth.json").write_text(json.dumps({"102": [14, 11], "103": [12]}))
    (root / "hard_negatives.json").write_text(json.dumps([[11, 14], [14, 11]]))
    corpus = read(root)
    assert corpus.true_images is not None and corpus.hard_negatives is not None
    assert [rows.tolist() for rows in corpus.true_images[:5]] == [[], [], [1, 4], [2], []]
    assert corpus.hard_negatives.tolist() == [[1, 4], [4, 1]]


def test_labels_bring_the_label_protocol(tmp_path: Path) -> None:
    entries = karpathy_entries()
    lists = [["dog", "grass"], ["dog"], [], ["cat"], ["dog", "cat"], ["cat"]]
    for entry, labels in zip(entries, lists, strict=True):
        entry["labels"] = labels
    root = write_karpathy(tmp_path, entries)
    corpus = read(root)
    assert corpus.labels is not None and corpus.label_names == ["cat", "dog", "grass"]
    assert corpus.labels.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert isinstance(protocol_for(corpus), LabelProtocol)
    # A second file beside it must be named.
    (root / "dataset_small.json").rename(root / "tags.json")
    write_karpathy(root, karpathy_entries())
    assert read(root, annotations="tags.json").fingerprint == corpus.fingerprint
    assert read(root).labels is None and isinstance(protocol_for(read(root)), CaptionProtocol)
    with pytest.raises(InputError, match=r"nothing\.json"):
        read(root, annotations="nothing.json")


@pytest.mark.parametrize("labels", [None, "dog", [3], [""]])
def test_labels_of_some_images_only_are_refused(labels: Any, tmp_path: Path) -> None:
    entries = [entry | {"labels": ["dog"]} for entry in karpathy_entries()]
    entries[2]["labels"] = labels
    with pytest.raises(InputError, match=r"images\[2\] has no list of names"):
        read(write_karpathy(tmp_path, entries))


def test_labels_that_name_nothing_are_refused(tmp_path: Path) -> None:
    entries = [entry | {"labels": []} for entry in karpathy_entries()]
    with pytest.raises(InputError, match="no image has a label"):
        read(write_karpathy(tmp_path, entries))


def entry(row: int, **fields: Any) -> Callable[[Path], Any]:
    entries = karpathy_entries()
    entries[row].update(fields)
    return lambda root: write_karpathy(root, entries)


def file(name: str, content: Any) -> Callable[[Path], Any]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda root: (root / name).write_bytes(data)


def remove(*names: str) -> Callable[[Path], Any]:
    def spoil(root: Path) -> None:
        for name in names:
            (root / name).unlink()

    return spoil


SOURCE = "dataset_small.json"
WRONG: list[tuple[Callable[[Path], Any], str]] = [
    (entry(1, split="dev"), "1.jpg has the unknown split 'dev'"),
    (entry(1, filename="0.jpg"), "'0.jpg' occurs twice"),
    (entry(1, imgid=10), "imgid occurs twice"),
    (entry(1, sentences=[{"raw": "x", "sentid": 100}]), "'100' occurs twice"),
    (entry(1, sentences=[{"raw": " ", "sentid": 102}]), "sentid 102 has the caption ' '"),
    (entry(1, sentences=[{"raw": "x"}]), r"images\[1\].*sentid"),
    (entry(1, sentences=None), r"images\[1\]"),
    (lambda root: write_karpathy(root, karpathy_entries()[2:4]), "no image is in the split test"),
    (remove("images/2.jpg", "images/4.jpg"), r"2 of 6 images are missing, the first is 2\.jpg"),
    (file("images/2.jpg", b""), r"2\.jpg: the file is empty"),
    (file(SOURCE, b'{"images": [\n  {"filename" "0.jpg"}]}'), r"small\.json, line 2, column 15: not JSON"),
    (file(SOURCE, b'{"images": [\n"\xe9"]}'), "line 2: byte 0xe9 is not UTF-8"),
    (file(SOURCE, []), "no list 'images'"),
    (remove(SOURCE), "found none"),
    (file("dataset_small.json.gz", {}), r"found dataset_small\.json, dataset_small\.json\.gz"),
    (file("truth.json", {"999": [11]}), "sentid 999"),
    (file("truth.json", {"102": [99]}), "imgid 99"),
    (file("truth.json", {"102": [14]}), "caption 102 is not listed as true of its own image"),
    (file("hard_negatives.json", [[11, 99]]), "imgid 99"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_files_are_named_in_one_line(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    spoil(root)
    with pytest.raises(InputError, match=message) as error:
        read(root)
    assert "\n" not in str(error.value)


def write_tokens(root: Path) -> Path:
    lines = [f"{image}.jpg#{k}\tImage {image}, caption {k}." for image in (7, 3, 9, 5) for k in range(2)]
    write_lines(root / "results_20130124.token", [*lines, "9.jpg#2\tone\u2028two\x0cthree"])
    write_lines(root / "train.txt", ["9"])
    write_lines(root / "val.txt", ["3.jpg"], "\r\n")
    write_lines(root / "test.txt", ["7", ""])
    for image in (3, 7, 9):
        write_image(root / "flickr30k-images" / f"{image}.jpg", image)
    return root


def test_flickr30k_tokens(tmp_path: Path) -> None:
    corpus = Flickr30KTokens(write_tokens(tmp_path)).read()
    assert list(corpus.image_ids) == ["7.jpg", "3.jpg", "9.jpg"]  # 5 is in no list
    assert list(corpus.text_ids) == ["7.jpg#0", "7.jpg#1", "3.jpg#0", "3.jpg#1", "9.jpg#0", "9.jpg#1", "9.jpg#2"]
    assert corpus.texts[3] == "Image 3, caption 1."
    assert corpus.texts[6] == "one\u2028two\x0cthree"  # not the ends of lines
    assert corpus.text_to_image.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert (corpus.train.tolist(), corpus.stages["val"].queries.tolist()) == ([2], [1])
    assert corpus.stages["test"].gallery.tolist() == [0]
    assert numbers_of(corpus.images) == [7, 3, 9]
    assert counts(corpus)["images"] == (3, 31_014)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("val.txt", "7", r"test\.txt, line 1: 7\.jpg is already in val\.txt"),
        ("val.txt", "8", r"no caption of 8\.jpg, which val\.txt lists"),
        ("results_20130124.token", "7.jpg#2 no tab", r"token, line 10: expected"),
        ("results_20130124.token", "7.jpg#2\t ", r"token, line 10: expected"),
        ("results_20130124.token", "7.jpg#1\tagain", "'7.jpg#1' occurs twice"),
        ("val.txt", None, r"missing: .*val\.txt; expected results_20130124\.token"),
    ],
)
def test_wrong_token_files_are_named(tmp_path: Path, name: str, line: str | None, message: str) -> None:
    root = write_tokens(tmp_path)
    if line is None:
        (root / name).unlink()
    else:
        with (root / name).open("a", encoding="utf-8") as opened:
            opened.write(f"{line}\n")
    with pytest.raises(InputError, match=message):
        Flickr30KTokens(root).read()


def test_flickr30k_at_full_size(shared_data: Path) -> None:
    corpus = read(shared_data / "flickr30k")
    assert corpus.name == "flickr30k"
    assert corpus.images is None
    assert counts(corpus) == {
        "images": (31_014, 31_014),
        "captions": (155_070, 155_070),
        "training images": (29_000, 29_000),
        "validation images": (1_014, 1_014),
        "test images": (1_000, 1_000),
    }
    assert all(len(texts) == 5 for texts in corpus.texts_of_image)


def test_flickr8k_as_tags_with_labels(shared_data: Path) -> None:
    corpus = read(shared_data / "flickr8k", annotations="tags_flickr8k.json")
    assert corpus.labels is not None and corpus.labels.shape == (6_763, 24)
    assert corpus.labels.sum(1).mean() == pytest.approx(2.07, abs=0.01)
    assert len(corpus.train) == 4_838 and len(corpus.stages["val"].queries) == 962


def test_flickr8k_with_its_photographs(shared_data: Path) -> None:
    corpus = read(shared_data / "flickr8k")
    assert corpus.images is not None
    assert len(corpus.images) == 7_000
    assert corpus.images[0].mode == "RGB"  # type: ignore[union-attr]
    assert counts(corpus)["training images"] == (5_000, 6_000)  # not the published split, and it says so
