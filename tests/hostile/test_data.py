"""Pictures and folders that are damaged or hostile; what readers make of their files is tested beside each of them."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import Damage, instead, write
from layouts import karpathy_entries, write_karpathy
from refusal import refusal
from scipy.io import savemat
from scipy.sparse import csc_matrix
from toy import toy_arguments, toy_corpus

from itmbench.cli.main import main


def png(width: int, height: int) -> bytes:
    """The header of a PNG file of this size, without pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    )


DECODED: dict[str, Damage] = {
    "an image of text": write("images/2.jpg", b"no picture at all"),
    "an image cut short": lambda root: os.truncate(root / "images/2.jpg", 300),
    "an image of 3.6 billion pixels": write("images/2.jpg", png(60_000, 60_000)),
    "an image as large as a header can say": write("images/2.jpg", png(2**31 - 1, 2**31 - 1)),
    "an image without pixels": write("images/2.jpg", png(0, 5)),
    "an image that is a loop of links": instead("images/2.jpg", lambda path: path.symlink_to(path.name)),
}


@pytest.mark.parametrize("case", DECODED)
def test_pictures_that_cannot_be_decoded(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_karpathy(tmp_path, karpathy_entries())
    DECODED[case](root)
    line = refusal(["data", "verify", "captions", "--deep", "--root", str(root)], capsys, tmp_path)
    assert ("2.jpg: Too many levels" if "links" in case else "1 of 6 images cannot be read") in line


def test_a_file_name_of_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = karpathy_entries()
    root = write_karpathy(tmp_path, entries)
    entries[1]["filename"] = "one\ntwo.jpg"
    write_karpathy(root, entries, images=None)
    assert "two.jpg" in refusal(["data", "verify", "captions", "--root", str(root)], capsys, tmp_path)


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


ROOTS = {"of 5,000 letters": "x" * 5000, "that does not exist": "nowhere", "empty": "", "a loop of links": "loop"}


@pytest.mark.parametrize("dataset", ["captions", "feature_folder", "regions", "mirflickr25k", "nuswide", "dcmh"])
@pytest.mark.parametrize("root", ROOTS)
def test_roots(
    dataset: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    refusal(["data", "verify", dataset, "--root", ROOTS[root]], capsys, tmp_path)


@pytest.mark.parametrize("option", ["annotations", "images"])
def test_a_pipe_is_not_read_for_ever(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dataset.json").write_text('{"images": []}')
    os.mkfifo(tmp_path / "pipe")
    command = ["data", "verify", "captions", f"--root={tmp_path}", f"--{option}={tmp_path / 'pipe'}"]
    assert "DIR/pipe: is neither a file nor a folder" in refusal(command, capsys, tmp_path)
