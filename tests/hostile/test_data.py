"""Datasets that are damaged, misshapen or hostile: `itmbench data verify` names the file and says what to do."""

import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import (
    karpathy_entries,
    write_karpathy,
    write_mirflickr,
    write_nuswide,
    write_regions,
)
from own_features import write_features
from refusal import refusal
from scipy.io import savemat
from scipy.sparse import csc_matrix
from toy import toy_arguments, toy_corpus

from itmbench.cli.main import main

Spoil = Callable[[Path], Any]
Case = tuple[Spoil, str]


def write(name: str, content: Any) -> Spoil:
    """Replace a file by bytes, or by a value as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda root: (root / name).write_bytes(data)


def entry(**fields: Any) -> Spoil:
    """Change the second image of Karpathy's JSON."""
    entries = karpathy_entries()
    entries[1].update(fields)
    return lambda root: write_karpathy(root, entries, images=None)


def caption(**fields: Any) -> Spoil:
    """Change the only caption of the second image."""
    return entry(sentences=[{"raw": "A caption.", "sentid": 102} | fields])


def labelled(*labels: Any) -> Spoil:
    """Give labels to the six images."""
    entries = [each | {"labels": of} for each, of in zip(karpathy_entries(), labels, strict=True)]
    return lambda root: write_karpathy(root, entries)


def instead(name: str, make: Spoil) -> Spoil:
    """Put something else in a file's place."""

    def spoil(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return spoil


def png(width: int, height: int) -> bytes:
    """The header of a PNG file of this size, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )


JSON, IMAGE = "dataset_small.json", "images/2.jpg"
KARPATHY: dict[str, Case] = {
    "JSON cut short": (write(JSON, json.dumps(karpathy_entries()).encode()[:99]), "not JSON"),
    "JSON of nothing": (write(JSON, b""), "not JSON"),
    "JSON a number": (write(JSON, 5), "no list 'images'"),
    "JSON null": (write(JSON, None), "no list 'images'"),
    "images an object": (write(JSON, {"images": {}}), "no list 'images'"),
    "images empty": (write(JSON, {"images": []}), "no image"),
    "an image that is a number": (write(JSON, {"images": [3]}), "images[0] "),
    "JSON nested 100,000 deep": (write(JSON, b"[" * 100_000), "cannot be read"),
    "a number of 5,000 digits": (write(JSON, b'{"images": [' + b"9" * 5000 + b"]}"), "cannot be read"),
    "JSON in UTF-16": (write(JSON, '{"images": []}'.encode("utf-16")), "is not UTF-8"),
    "JSON a folder": (instead(JSON, Path.mkdir), "cannot be read"),
    "JSON a loop of links": (instead(JSON, lambda path: path.symlink_to(path.name)), "dataset_small.json"),
    "gzip cut short": (
        instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(gzip.compress(b"{}")[:-9])),
        "cannot be rea",
    ),
    "gzip of 80 MB of blanks": (
        instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(gzip.compress(b" " * 80_000_000, 1))),
        "json.gz: becomes more than 67,108,864 bytes of text",
    ),
    "gzip that is none": (instead(JSON, lambda p: Path(f"{p}.gz").write_bytes(b"{}")), "cannot be read"),
    "filename a list": (entry(filename=["1.jpg"]), "images[1]"),
    "filename a number": (entry(filename=1), "images[1]"),
    "filename null": (entry(filename=None), "images[1]"),
    "filename empty": (entry(filename=""), "images[1]"),
    "filename outside the folder": (entry(filename="../dataset_small.json"), "dataset_small.json"),
    "filename absolute": (entry(filename="/etc/passwd"), "passwd"),
    "filename with a newline": (entry(filename="one\ntwo.jpg"), "two.jpg"),
    "filename that is missing": (write(JSON, {"images": [karpathy_entries()[0] | {"filename": "n.jpg"}]}), ""),
    "filepath a list": (entry(filepath=["x"]), "images[1]"),
    "filepath a number": (entry(filepath=3), "images[1]"),
    "imgid a list": (entry(imgid=[1]), "images[1]"),
    "imgid an object": (entry(imgid={}), "images[1]"),
    "imgid NaN": (entry(imgid=float("nan")), "images[1]"),
    "imgid null": (entry(imgid=None), "images[1]"),
    "split a list": (entry(split=["test"]), "split"),
    "split null": (entry(split=None), "split"),
    "split a number": (entry(split=1), "split"),
    "split in capitals": (entry(split="TEST"), "unknown split 'TEST'"),
    "sentences a text": (entry(sentences="abc"), "images[1]"),
    "sentences an object": (entry(sentences={"raw": "x", "sentid": 3}), "images[1]"),
    "sentences of texts": (entry(sentences=["a", "b"]), "images[1]"),
    "a test image without captions": (entry(sentences=[]), "1.jpg"),
    "a val image without captions": (entry(sentences=[], split="val"), "1.jpg"),
    "caption NaN": (caption(raw=float("nan")), "102"),
    "caption null": (caption(raw=None), "102"),
    "caption a number": (caption(raw=12.5), "102"),
    "caption true": (caption(raw=True), "102"),
    "caption a list of words": (caption(raw=["two", "dogs"]), "102"),
    "caption an object": (caption(raw={}), "102"),
    "caption empty": (caption(raw=""), "102"),
    "caption of blanks": (caption(raw=" \n\t"), "102"),
    "caption of blanks of Unicode": (caption(raw="\u2003\u00a0"), "102"),
    "caption of half a letter": (caption(raw="half \ud83d"), "102"),
    "tokens numbers": (entry(sentences=[{"tokens": [1, 2], "sentid": 102}]), "102"),
    "tokens a number": (entry(sentences=[{"tokens": 5, "sentid": 102}]), "images[1]"),
    "sentid a list": (caption(sentid=[1]), "sentid"),
    "sentid null": (caption(sentid=None), "sentid"),
    "labels that nobody shares": (labelled(["a"], ["b"], ["c"], ["d"], ["e"], ["f"]), "label"),
    "one label that all have": (labelled(*[["a"]] * 6), "label"),
    "test images without labels": (labelled(["a"], [], ["b"], ["a"], [], ["b"]), "label"),
    "labels a text": (labelled("a", "b", "a", "b", "a", "b"), "images[0]"),
    "labels that are numbers": (labelled([1], [2], [1], [2], [1], [2]), "images[0]"),
    "a label of half a letter": (labelled(["\ud83d"], ["b"], ["\ud83d"], ["b"], ["b"], ["b"]), "images[0]"),
    "truth a number": (write("truth.json", 5), "truth.json"),
    "truth a list of lists": (write("truth.json", [[1], [2]]), "truth.json"),
    "truth of numbers": (write("truth.json", {"102": 11}), "truth.json"),
    "truth of lists of lists": (write("truth.json", {"102": [[11]]}), "truth.json"),
    "truth cut short": (write("truth.json", b'{"102": ['), "truth.json, line 1"),
    "twins a number": (write("hard_negatives.json", 5), "hard_negatives.json"),
    "twins of numbers": (write("hard_negatives.json", [11, 14]), "hard_negatives.json"),
    "twins of three": (write("hard_negatives.json", [[11, 14, 10]]), "hard_negatives.json"),
    "twins of lists": (write("hard_negatives.json", [[[11], [14]]]), "hard_negatives.json"),
    "twins an object": (write("hard_negatives.json", {"11": 14}), "hard_negatives.json"),
    "an image of text": (write(IMAGE, b"no picture at all"), "1 of 6 images cannot be read"),
    "an image cut short": (lambda root: os.truncate(root / IMAGE, 300), "1 of 6 images cannot be read"),
    "an image of 3.6 billion pixels": (write(IMAGE, png(60_000, 60_000)), "1 of 6 images cannot be read"),
    "an image as large as a header can say": (write(IMAGE, png(2**31 - 1, 2**31 - 1)), "1 of 6 images cannot be read"),
    "an image without pixels": (write(IMAGE, png(0, 5)), "1 of 6 images cannot be read"),
    "an image that is a loop of links": (instead(IMAGE, lambda path: path.symlink_to(path.name)), "2.jpg"),
    "an image that is a dead link": (instead(IMAGE, lambda path: path.symlink_to("gone.jpg")), "first is 2.jpg"),
    "an image that is a folder": (instead(IMAGE, Path.mkdir), "first is 2.jpg"),
    "an image that is a pipe": (instead(IMAGE, os.mkfifo), "2.jpg"),
}


@pytest.mark.parametrize("case", KARPATHY)
def test_captions(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    spoil, named = KARPATHY[case]
    spoil(root)
    assert named in refusal(["data", "verify", "captions", "--deep", "--root", str(root)], capsys, tmp_path)


def npy(name: str, array: Any) -> Spoil:
    return lambda root: np.save(root / name, np.asarray(array))


def archive(name: str) -> Spoil:
    """An ``.npz`` archive under another name."""

    def spoil(root: Path) -> None:
        with (root / name).open("wb") as file:
            np.savez(file, np.ones(3))

    return spoil


def header(name: str, shape: str) -> Spoil:
    """A ``.npy`` file whose header claims a shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return write(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)


def changed(name: str, change: Callable[[Any], Any]) -> Spoil:
    """A ``.npy`` file with other values."""

    def spoil(root: Path) -> None:
        np.save(root / name, change(np.load(root / name)))

    return spoil


def with_one(value: Any) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.astype(np.asarray(value).dtype if isinstance(value, complex) else array.dtype)
        array[-1] = value
        return array

    return change


FEATURES: dict[str, Case] = {
    "a shape of 10^18 x 10^18": (header("images.npy", f"({10**18}, {10**18})"), "images.npy"),
    "a shape of 10^30": (header("images.npy", f"({10**30},)"), "images.npy"),
    "a shape that is True": (header("images.npy", "(True, 5)"), "images.npy"),
    "a shape below 0": (header("images.npy", "(-1, 5)"), "images.npy"),
    "a shape of more than there is": (header("images.npy", "(60, 7)"), "images.npy"),
    "a shape that is code": (header("images.npy", "__import__('os').abort()"), "images.npy"),
    "no magic number": (write("images.npy", b"PK\x03\x04 nothing"), "images.npy"),
    "an empty file": (write("texts.npy", b""), "texts.npy"),
    "objects": (npy("images.npy", np.array([{}, []], dtype=object)), "images.npy"),
    "texts for numbers": (npy("images.npy", np.full((60, 7), "x")), "images.npy"),
    "complex numbers": (npy("images.npy", np.ones((60, 7), complex)), "images.npy"),
    "dates": (npy("images.npy", np.zeros((60, 7), "datetime64[s]")), "images.npy"),
    "a scalar": (npy("images.npy", 3.0), "images.npy"),
    "no rows": (npy("images.npy", np.zeros((0, 7))), "images.npy"),
    "no columns": (npy("images.npy", np.zeros((60, 0))), "images.npy"),
    "four dimensions": (npy("images.npy", np.zeros((60, 2, 2, 7))), "images.npy"),
    "NaN": (changed("images.npy", with_one(np.nan)), "row 59"),
    "infinity": (changed("texts.npy", with_one(np.inf)), "row 59"),
    "owners beyond the images": (changed("text_to_image.npy", with_one(60)), "row 59"),
    "owners below 0": (changed("text_to_image.npy", with_one(-1)), "row 59"),
    "owners of texts": (npy("text_to_image.npy", np.full(60, "0")), "text_to_image.npy"),
    "too few owners": (npy("text_to_image.npy", np.arange(59)), "text_to_image.npy"),
    "labels below 0": (npy("labels.npy", np.full(60, -1)), "labels.npy"),
    "labels of halves": (npy("labels.npy", np.full((60, 3), 0.5)), "labels.npy"),
    "labels NaN": (npy("labels.npy", np.full((60, 3), np.nan)), "labels.npy"),
    "too few labels": (npy("labels.npy", np.ones(59, int)), "labels.npy"),
    "labels that nobody shares": (npy("labels.npy", np.arange(60)), "labels.npy"),
    "one label that all have": (npy("labels.npy", np.zeros(60, int)), "labels.npy"),
    "labels a folder": (instead("labels.npy", Path.mkdir), "labels.npy"),
    "labels a dead link": (instead("labels.npy", lambda path: path.symlink_to("gone.npy")), "labels.npy"),
    "splits a list": (write("splits.json", [1]), "splits.json"),
    "splits a text": (write("splits.json", "train"), "splits.json"),
    "splits of texts": (write("splits.json", {"train": ["1"], "query": [2], "gallery": [2]}), "splits.json"),
    "splits of true": (write("splits.json", {"train": [True], "query": [2], "gallery": [2]}), "splits.json"),
    "splits of NaN": (write("splits.json", {"train": [float("nan")], "query": [2], "gallery": [2]}), "splits.json"),
    "splits that overlap": (write("splits.json", {"train": [1, 2], "query": [2], "gallery": [2]}), "share 1"),
    "splits that name a row twice": (write("splits.json", {"train": [1, 1], "query": [2], "gallery": [2]}), "twice"),
    "splits given twice": (write("splits.json", b'{"train": [1], "train": [2]}'), "occurs twice"),
    "a misspelt mask": (npy("images_mask.npy", np.ones((60, 3))), "does not belong"),
}


@pytest.mark.parametrize("case", FEATURES)
def test_features(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_features(tmp_path)
    spoil, named = FEATURES[case]
    spoil(root)
    assert named in refusal(["data", "verify", "feature_folder", "--root", str(root)], capsys, tmp_path)


REGIONS: dict[str, Case] = {
    "NaN in the test features": (changed("test_ims.npy", with_one(np.nan)), "test_ims.npy"),
    "infinity in the training features": (changed("train_ims.npy", with_one(np.inf)), "train_ims.npy"),
    "complex numbers": (changed("dev_ims.npy", lambda a: a.astype(complex)), "dev_ims.npy"),
    "complex numbers in all": (
        lambda root: [changed(f"{s}_ims.npy", lambda a: a.astype(complex))(root) for s in ("train", "dev", "test")],
        "train_ims.npy",
    ),
    "texts in all": (
        lambda root: [changed(f"{s}_ims.npy", lambda a: a.astype(str))(root) for s in ("train", "dev", "test")],
        "train_ims.npy",
    ),
    "another width": (npy("dev_ims.npy", np.zeros((2, 3, 5), np.float32)), "dev_ims.npy"),
    "a scalar": (npy("dev_ims.npy", 2.0), "dev_ims.npy"),
    "no rows": (npy("dev_ims.npy", np.zeros((0, 3, 4), np.float32)), "dev_ims.npy"),
    "a shape of 10^30": (header("train_ims.npy", f"({10**30}, 3, 4)"), "train_ims.npy"),
    "an archive": (archive("dev_ims.npy"), "dev_ims.npy"),
    "captions of another image too many": (write("dev_caps.txt", b"a\n" * 11), "dev_caps.txt has 11 captions"),
    "an empty caption": (write("dev_caps.txt", b"a\n\n" * 5), "dev_caps.txt, line 2"),
    "no captions": (write("dev_caps.txt", b""), "dev_"),
    "captions in Latin-1": (write("dev_caps.txt", b"caf\xe9\n" * 10), "dev_caps.txt, line 1: byte 0xe9"),
    "ids given twice": (write("dev_ids.txt", b"7\n7\n"), "dev_ids.txt"),
}


@pytest.mark.parametrize("case", REGIONS)
def test_regions(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_regions(tmp_path)
    spoil, named = REGIONS[case]
    spoil(root)
    assert named in refusal(["data", "verify", "regions", "--root", str(root)], capsys, tmp_path)


ANNOTATIONS, TAGS = "mirflickr25k_annotations_v080", "mirflickr/doc/common_tags.txt"
MIRFLICKR: dict[str, Case] = {
    "a label of 5,000 digits": (write(f"{ANNOTATIONS}/water.txt", b"9" * 5000), "water.txt, line 1"),
    "a label below 1": (write(f"{ANNOTATIONS}/water.txt", b"0\n"), "water.txt, line 1"),
    "a label beyond the images": (write(f"{ANNOTATIONS}/water.txt", b"1\n99\n"), "water.txt, line 2"),
    "a label of letters": (write(f"{ANNOTATIONS}/water.txt", b"im1\n"), "water.txt, line 1"),
    "a label in superscript": (write(f"{ANNOTATIONS}/water.txt", "1²\n".encode()), "water.txt, line 1"),
    "a label file of bytes": (write(f"{ANNOTATIONS}/water.txt", b"\xff\xfe"), "water.txt, line 1"),
    "a vocabulary without counts": (write(TAGS, b"sun\n"), "common_tags.txt, line 1"),
    "a vocabulary with a tag twice": (write(TAGS, b"sun 4\nsun 3\n"), "common_tags.txt, line 2"),
    "an empty vocabulary": (write(TAGS, b""), "common_tags.txt"),
    "a gap in the tags": (lambda root: (root / "mirflickr/meta/tags/tags3.txt").unlink(), "tags3.txt"),
    "an image that is missing": (lambda root: (root / "mirflickr/im3.jpg").unlink(), "im3.jpg"),
    "a number of tags with 5,000 digits": (write(f"mirflickr/meta/tags/tags{'9' * 200}.txt", b""), "tags9.txt"),
}


@pytest.mark.parametrize("case", MIRFLICKR)
def test_mirflickr(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_mirflickr(tmp_path)
    spoil, named = MIRFLICKR[case]
    spoil(root)
    split = ["--queries", "2", "--train", "3", "--val", "1"]
    assert named in refusal(["data", "verify", "mirflickr25k", "--root", str(root), *split], capsys, tmp_path)


LABELS = "Groundtruth/AllLabels/Labels_sky.txt"
NUSWIDE: dict[str, Case] = {
    "a vocabulary with a tag twice": (write("NUS_WID_Tags/TagList1k.txt", b"sky\nsky\nzoo\n"), "TagList1k.txt"),
    "a concept twice": (write("ConceptsList/Concepts81.txt", b"person\nsky\nsky\ncow\n"), "Concepts81.txt"),
    "a concept without its file": (write("ConceptsList/Concepts81.txt", b"person\nmoon\n"), "Labels_moon.txt"),
    "too few labels": (write(LABELS, b"1\n0\n"), "Labels_sky.txt"),
    "a label of 2": (write(LABELS, b"1\n0\n2\n1\n0\n"), "Labels_sky.txt"),
    "labels of bytes": (write(LABELS, b"\xff\n" * 5), "Labels_sky.txt"),
    "too few tag rows": (write("NUS_WID_Tags/AllTags1k.txt", b"1\t0\t1\t\n"), "AllTags1k.txt"),
    "a tag of 2": (write("NUS_WID_Tags/AllTags1k.txt", b"1\t0\t2\t\n" * 5), "AllTags1k.txt"),
    "a list of images of nothing": (write("ImageList/Imagelist.txt", b""), "list"),
    "tags of other photos": (write("NUS_WID_Tags/All_Tags.txt", b"9 sky\n" * 5), "All_Tags.txt"),
}


@pytest.mark.parametrize("case", NUSWIDE)
def test_nuswide(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_nuswide(tmp_path)
    spoil, named = NUSWIDE[case]
    spoil(root)
    split = ["--queries", "1", "--train", "2", "--val", "1"]
    assert named in refusal(["data", "verify", "nuswide", "--root", str(root), *split], capsys, tmp_path)


def mat(**matrices: Any) -> Spoil:
    generator = np.random.default_rng(0)
    whole = {name: (generator.random((20, 4)) < 0.5).astype(np.uint8) for name in ("LAll", "YAll", "IAll")}
    return lambda root: savemat(root / "all.mat", whole | matrices)


def cut_matrices(root: Path) -> None:
    mat()(root)
    os.truncate(root / "all.mat", 150)


MAT: dict[str, Case] = {
    "labels a cell array": (mat(LAll=np.array([[1], ["x"]] * 10, dtype=object)), "LAll"),
    "labels a struct": (mat(LAll={"a": 1}), "LAll"),
    "labels texts": (mat(LAll=np.full((20, 1), "abc")), "LAll"),
    "labels complex": (mat(LAll=np.full((20, 4), 1j)), "LAll"),
    "labels NaN": (mat(LAll=np.full((20, 4), np.nan)), "LAll"),
    "labels of 2": (mat(LAll=np.full((20, 4), 2)), "LAll"),
    "labels empty": (mat(LAll=np.zeros((0, 4))), "LAll"),
    "tags sparse with a 2": (mat(YAll=csc_matrix(np.full((20, 4), 2.0))), "YAll"),
    "features NaN": (mat(IAll=np.full((20, 4), np.nan)), "IAll"),
    "features a cell array": (mat(IAll=np.array([[1], ["x"]] * 10, dtype=object)), "IAll"),
    "features complex": (mat(IAll=np.full((20, 4), 1j)), "IAll"),
    "a file cut short": (cut_matrices, "all.mat"),
    "a file of version 7.3": (write("all.mat", b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\x00\x02IM"), "all.mat"),
    "no file at all": (lambda root: None, "no matrix LAll"),
}


@pytest.mark.parametrize("case", MAT)
def test_matlab_files(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, named = MAT[case]
    spoil(tmp_path)
    command = ["data", "verify", "dcmh", "--root", str(tmp_path), "--queries", "2", "--train", "8", "--val", "2"]
    assert named in refusal(command, capsys, tmp_path)


def test_sparse_matrices_are_read_like_dense_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for sparse in (False, True):
        generator = np.random.default_rng(0)
        made = {name: (generator.random((20, 4)) < 0.7).astype(float) for name in ("LAll", "YAll")}
        folder = tmp_path / str(sparse)
        folder.mkdir()
        savemat(folder / "all.mat", {name: csc_matrix(m) if sparse else m for name, m in made.items()})
        assert main(["data", "prepare", "dcmh", f"--root={folder}", "--queries=2", "--train=8", "--val=2"]) == 0
        printed.append(capsys.readouterr().out.splitlines()[:-1])
    assert printed[0] == printed[1]


def test_a_picture_without_end_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_corpus(tmp_path / "toy")
    (tmp_path / "toy" / "3.png").write_bytes(png(60_000, 60_000))
    line = refusal(["fit", *toy_arguments(tmp_path, "--trainer.logger=false")], capsys, tmp_path / "toy")
    assert "3.png: too many pixels" in line


ROOTS = {"of 5,000 letters": "x" * 5000, "that does not exist": "nowhere", "empty": ""}


@pytest.mark.parametrize("dataset", ["captions", "feature_folder", "regions", "mirflickr25k", "nuswide", "dcmh"])
@pytest.mark.parametrize("root", ROOTS)
def test_roots(
    dataset: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(["data", "verify", dataset, "--root", ROOTS[root]], capsys, tmp_path)
