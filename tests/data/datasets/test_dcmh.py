import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import Cases, Damage, refused
from scipy.io import savemat
from scipy.sparse import csc_matrix

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets import DCMHMatrices

LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], np.uint8)
TAGS = np.eye(5, 4, dtype=np.float64)


def write(root: Path, **matrices: Any) -> Path:
    for name, matrix in ({"LAll": LABELS, "YAll": TAGS} | matrices).items():
        savemat(root / f"{name}.mat", {name: matrix, "other": np.ones(3)}, do_compression=True)
    return root


def read(root: Path, **options: Any) -> Corpus:
    return DCMHMatrices(root, queries=1, train=3, val=1, **options).read()


def test_matrices_become_labels_texts_and_images(tmp_path: Path) -> None:
    corpus = read(write(tmp_path))
    assert corpus.images is None
    np.testing.assert_array_equal(corpus.labels, LABELS)
    assert isinstance(corpus.texts, Features)
    np.testing.assert_array_equal(corpus.texts.array[:], TAGS)
    assert corpus.text_to_image.tolist() == [0, 1, 2, 3, 4]
    assert read(tmp_path, order="first").stages["test"].queries.tolist() == [0]
    (tmp_path / "together").mkdir()
    savemat(tmp_path / "together" / "all.mat", {"LAll": LABELS, "YAll": TAGS})
    assert read(tmp_path / "together").fingerprint == corpus.fingerprint
    features = np.random.default_rng(0).random((5, 7))
    images = read(write(tmp_path, IAll=features)).images
    assert isinstance(images, Features)
    np.testing.assert_allclose(images[3][0], features[3], rtol=1e-6)


def matrix(**matrices: Any) -> Damage:
    return lambda root: write(root, **matrices)


def other(content: bytes) -> Damage:
    return lambda root: (root / "other.mat").write_bytes(content)


CELLS = np.array([[1], ["x"], [1], ["x"], [1]], dtype=object)
WRONG: Cases = {
    "too few tags": (matrix(YAll=TAGS[:4]), "LAll has 5 rows, YAll has 4 rows"),
    "labels of 2": (matrix(LAll=LABELS * 2), "LAll row 0 holds numbers other than 0 and 1"),
    "labels a cell array": (matrix(LAll=CELLS), "LAll"),
    "labels a struct": (matrix(LAll={"a": 1}), "LAll"),
    "labels texts": (matrix(LAll=np.full((5, 1), "abc")), "LAll"),
    "labels complex": (matrix(LAll=np.full((5, 4), 1j)), "LAll"),
    "labels NaN": (matrix(LAll=np.full((5, 4), np.nan)), "LAll"),
    "labels empty": (matrix(LAll=np.zeros((0, 4))), "LAll"),
    "tags sparse with a 2": (matrix(YAll=csc_matrix(np.full((5, 4), 2.0))), "YAll"),
    "features of tokens": (matrix(IAll=np.zeros((5, 2, 2, 3))), r"IAll\.mat: IAll has shape \(5, 2, 2, 3\)"),
    "features NaN": (matrix(IAll=np.full((5, 4), np.nan)), "IAll"),
    "features a cell array": (matrix(IAll=CELLS), "IAll"),
    "features complex": (matrix(IAll=np.full((5, 4), 1j)), "IAll"),
    "labels twice": (lambda root: savemat(root / "other.mat", {"LAll": LABELS}), "LAll is also in another"),
    "damaged": (other(b"MATLAB 5.0 MAT-file" + b"\0" * 200), r"other\.mat: not a readable MATLAB file"),
    "cut short": (lambda root: os.truncate(root / "LAll.mat", 150), r"LAll\.mat"),
    "version 7.3": (
        other(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 400),
        r"other\.mat: a MATLAB 7\.3 file",
    ),
    "no tags": (lambda root: (root / "YAll.mat").unlink(), "no matrix YAll"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_in_one_line(case: str, tmp_path: Path) -> None:
    damage, message = WRONG[case]
    damage(write(tmp_path))
    assert re.search(message, refused(read, tmp_path))


def test_mirflickr_at_full_size(shared_data: Path) -> None:
    corpus = DCMHMatrices(shared_data / "mirflickr25k").read()
    assert [(count.found, count.published) for count in corpus.counts] == [(20_015,) * 2, (24,) * 2, (1_386,) * 2]
    assert corpus.labels is not None
    assert corpus.labels.sum(axis=1).mean() == pytest.approx(3.78, abs=0.005)
    assert isinstance(corpus.texts, Features)
    assert corpus.texts.array[:].sum(axis=1).mean() == pytest.approx(4.64, abs=0.005)
    sizes = {name: (len(stage.queries), len(stage.gallery)) for name, stage in corpus.stages.items()}
    assert sizes == {"val": (1_000, 9_000), "test": (2_000, 18_015)}
    mith = DCMHMatrices(shared_data / "mirflickr25k", order="mith").read()
    assert {name: (len(stage.queries), len(stage.gallery)) for name, stage in mith.stages.items()} == sizes
    assert mith.stages["test"].queries[:5].tolist() == [4, 6, 7, 13, 22]
    assert mith.train[:5].tolist() == [0, 5, 8, 12, 16]
