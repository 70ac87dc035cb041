import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from damage import Cases, Damage, instead, refused, remove, write
from layouts import karpathy_entries, numbers_of, write_karpathy

from itmbench.data.corpus import Corpus
from itmbench.data.datasets import KarpathyCaptions
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
    lists = [["dog", "grass"], ["dog "], [], ["caf\u00e9"], ["dog", "cafe\u0301"], ["caf\u00e9"]]
    for entry, labels in zip(entries, lists, strict=True):
        entry["labels"] = labels
    root = write_karpathy(tmp_path, entries)
    corpus = read(root)
    assert corpus.labels is not None and corpus.label_names == ["caf\u00e9", "dog", "grass"]
    assert corpus.labels.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]
    assert isinstance(protocol_for(corpus), LabelProtocol)
    # A second file beside it must be named.
    (root / "dataset_small.json").rename(root / "tags.json")
    write_karpathy(root, karpathy_entries())
    assert read(root, annotations="tags.json").fingerprint == corpus.fingerprint
    assert read(root).labels is None and isinstance(protocol_for(read(root)), CaptionProtocol)
    with pytest.raises(InputError, match=r"nothing\.json"):
        read(root, annotations="nothing.json")


def entry(row: int = 1, **fields: Any) -> Damage:
    """Change an image of Karpathy's JSON."""
    entries = karpathy_entries()
    entries[row].update(fields)
    return lambda root: write_karpathy(root, entries, images=None)


def caption(**fields: Any) -> Damage:
    """Change the only caption of the second image."""
    return entry(sentences=[{"raw": "A caption.", "sentid": 102} | fields])


def labelled(*labels: Any) -> Damage:
    """Give labels to the six images."""
    entries = [each | {"labels": of} for each, of in zip(karpathy_entries(), labels, strict=True)]
    return lambda root: write_karpathy(root, entries)


JSON, IMAGE = "dataset_small.json", "images/2.jpg"
WRONG: Cases = {
    "JSON damaged": (
        write(JSON, b'{"images": [\n  {"filename" "0.jpg"}]}'),
        r"small\.json, line 2, column 15: not JSON",
    ),
    "JSON of nothing": (write(JSON, b""), "not JSON"),
    "JSON a list": (write(JSON, []), "no list 'images'"),
    "JSON a number": (write(JSON, 5), "no list 'images'"),
    "JSON null": (write(JSON, None), "no list 'images'"),
    "images an object": (write(JSON, {"images": {}}), "no list 'images'"),
    "images empty": (write(JSON, {"images": []}), "no image"),
    "an image that is a number": (write(JSON, {"images": [3]}), r"images\[0\] "),
    "JSON nested 100,000 deep": (write(JSON, b"[" * 100_000), "cannot be read"),
    "a number of 5,000 digits": (write(JSON, b'{"images": [' + b"9" * 5000 + b"]}"), "cannot be read"),
    "JSON in Latin-1": (write(JSON, b'{"images": [\n"\xe9"]}'), "line 2: byte 0xe9 is not UTF-8"),
    "JSON a folder": (instead(JSON, Path.mkdir), "cannot be read"),
    "JSON a loop of links": (instead(JSON, lambda path: path.symlink_to(path.name)), r"dataset_small\.json"),
    "no JSON": (remove(JSON), "found none"),
    "two JSON": (write(f"{JSON}.gz", {}), r"found dataset_small\.json, dataset_small\.json\.gz"),
    "gzip cut short": (
        instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(gzip.compress(b"{}")[:-9])),
        "cannot be rea",
    ),
    "gzip of 80 MB of blanks": (
        instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(gzip.compress(b" " * 80_000_000, 1))),
        r"json\.gz: becomes more than 67,108,864 bytes of text",
    ),
    "gzip that is none": (instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(b"{}")), "cannot be read"),
    "filename twice": (entry(filename="0.jpg"), "'0.jpg' occurs twice"),
    "filename twice in two spellings": (entry(filename="./0.jpg"), "'0.jpg' occurs twice"),
    "filename a list": (entry(filename=["1.jpg"]), r"images\[1\]"),
    "filename a number": (entry(filename=1), r"images\[1\]"),
    "filename null": (entry(filename=None), r"images\[1\]"),
    "filename empty": (entry(filename=""), r"images\[1\]"),
    "filename outside the folder": (entry(filename="../dataset_small.json"), r"dataset_small\.json"),
    "filename absolute": (entry(filename="/etc/passwd"), "passwd"),
    "filename that is missing": (entry(filename="n.jpg"), r"1 of 6 images is missing, n\.jpg;"),
    "filepath a list": (entry(filepath=["x"]), r"images\[1\]"),
    "filepath a number": (entry(filepath=3), r"images\[1\]"),
    "imgid twice": (entry(imgid=10), "imgid occurs twice"),
    "imgid a list": (entry(imgid=[1]), r"images\[1\]"),
    "imgid an object": (entry(imgid={}), r"images\[1\]"),
    "imgid NaN": (entry(imgid=float("nan")), r"images\[1\]"),
    "imgid null": (entry(imgid=None), r"images\[1\]"),
    "split unknown": (entry(split="dev"), r"1\.jpg has the unknown split 'dev'"),
    "split in capitals": (entry(split="TEST"), "unknown split 'TEST'"),
    "split a list": (entry(split=["test"]), "split"),
    "split null": (entry(split=None), "split"),
    "split a number": (entry(split=1), "split"),
    "no test split": (lambda root: write_karpathy(root, karpathy_entries()[2:4]), "no image is in the split test"),
    "sentences null": (entry(sentences=None), r"images\[1\]"),
    "sentences a text": (entry(sentences="abc"), r"images\[1\]"),
    "sentences an object": (entry(sentences={"raw": "x", "sentid": 3}), r"images\[1\]"),
    "sentences of texts": (entry(sentences=["a", "b"]), r"images\[1\]"),
    "a test image without captions": (entry(sentences=[]), r"1\.jpg"),
    "a val image without captions": (entry(sentences=[], split="val"), r"1\.jpg"),
    "caption NaN": (caption(raw=float("nan")), "102"),
    "caption null": (caption(raw=None), "102"),
    "caption a number": (caption(raw=12.5), "102"),
    "caption true": (caption(raw=True), "102"),
    "caption a list of words": (caption(raw=["two", "dogs"]), "102"),
    "caption an object": (caption(raw={}), "102"),
    "caption empty": (caption(raw=""), "102"),
    "caption of a blank": (caption(raw=" "), "sentid 102 has the caption ' '"),
    "caption of blanks of Unicode": (caption(raw="\u2003\u00a0"), "102"),
    "caption of half a letter": (caption(raw="half \ud83d"), "102"),
    "caption under another name": (
        entry(sentences=[{"text": "A dog.", "sentid": 102}]),
        r"images\[1\] .*no 'raw' or 'tokens'; its keys are 'text', 'sentid'",
    ),
    "a number in place of a caption": (entry(sentences=[3]), r"images\[1\] .*3 is not an object"),
    "tokens numbers": (entry(sentences=[{"tokens": [1, 2], "sentid": 102}]), "102"),
    "tokens a number": (entry(sentences=[{"tokens": 5, "sentid": 102}]), r"images\[1\]"),
    "sentid twice": (caption(sentid=100), "'100' occurs twice"),
    "no sentid": (entry(sentences=[{"raw": "x"}]), r"images\[1\].*sentid"),
    "sentid a list": (caption(sentid=[1]), "sentid"),
    "sentid null": (caption(sentid=None), "sentid"),
    "labels that nobody shares": (labelled(["a"], ["b"], ["c"], ["d"], ["e"], ["f"]), "label"),
    "one label that all have": (labelled(*[["a"]] * 6), "label"),
    "test images without labels": (labelled(["a"], [], ["b"], ["a"], [], ["b"]), "label"),
    "labels that name nothing": (labelled(*[[]] * 6), "no image has a label"),
    "labels a text": (labelled("a", "b", "a", "b", "a", "b"), r"images\[0\]"),
    "labels that are numbers": (labelled([1], [2], [1], [2], [1], [2]), r"images\[0\]"),
    "a label of half a letter": (labelled(["\ud83d"], ["b"], ["\ud83d"], ["b"], ["b"], ["b"]), r"images\[0\]"),
    "labels of some only": (labelled(["a"], ["a"], None, ["a"], ["a"], ["a"]), r"images\[2\] has no list of names"),
    "a label empty": (labelled(["a"], ["a"], [""], ["a"], ["a"], ["a"]), r"images\[2\] has no list of names"),
    "truth a number": (write("truth.json", 5), r"truth\.json"),
    "truth a list of lists": (write("truth.json", [[1], [2]]), r"truth\.json"),
    "truth of numbers": (write("truth.json", {"102": 11}), r"truth\.json"),
    "truth of lists of lists": (write("truth.json", {"102": [[11]]}), r"truth\.json"),
    "truth of a caption twice": (write("truth.json", b'{"102": [11], "102": [11, 14]}'), "'102' occurs twice"),
    "truth cut short": (write("truth.json", b'{"102": ['), r"truth\.json, line 1"),
    "truth of another caption": (write("truth.json", {"999": [11]}), "sentid 999"),
    "truth of another image": (write("truth.json", {"102": [99]}), "imgid 99"),
    "truth without its own": (write("truth.json", {"102": [14]}), "caption 102 is not listed as true of its own image"),
    "twins a number": (write("hard_negatives.json", 5), r"hard_negatives\.json"),
    "twins of numbers": (write("hard_negatives.json", [11, 14]), r"hard_negatives\.json"),
    "twins of three": (write("hard_negatives.json", [[11, 14, 10]]), r"hard_negatives\.json"),
    "twins of lists": (write("hard_negatives.json", [[[11], [14]]]), r"hard_negatives\.json"),
    "twins an object": (write("hard_negatives.json", {"11": 14}), r"hard_negatives\.json"),
    "twins of another image": (write("hard_negatives.json", [[11, 99]]), "imgid 99"),
    "images that are missing": (remove(IMAGE, "images/4.jpg"), r"2 of 6 images are missing, the first is 2\.jpg"),
    "an image of nothing": (write(IMAGE, b""), r"2\.jpg: the file is empty"),
    "an image that is a dead link": (instead(IMAGE, lambda path: path.symlink_to("gone.jpg")), r"missing, 2\.jpg"),
    "an image that is a folder": (instead(IMAGE, Path.mkdir), r"missing, 2\.jpg"),
    "an image that is a pipe": (instead(IMAGE, os.mkfifo), r"2\.jpg"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    damage, message = WRONG[case]
    damage(root)
    assert re.search(message, refused(read, root))


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
