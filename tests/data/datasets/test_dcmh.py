import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from itmbench.data.corpus import Corpus, Features
from itmbench.data.datasets.dcmh import read_dcmh
from itmbench.errors import InputError

LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], np.uint8)
TAGS = np.eye(5, 4, dtype=np.float64)


def write(root: Path, **matrices: Any) -> Path:
    for name, matrix in ({"LAll": LABELS, "YAll": TAGS} | matrices).items():
        savemat(root / f"{name}.mat", {name: matrix, "other": np.ones(3)}, do_compression=True)
    return root


def read(root: Path, **options: Any) -> Corpus:
    return read_dcmh(root, queries=1, train=3, val=1, **options)


def test_matrices_become_labels_and_texts(tmp_path: Path) -> None:
    corpus = read(write(tmp_path))
    assert corpus.images is None
    np.testing.assert_array_equal(corpus.labels, LABELS)
    assert isinstance(corpus.texts, Features)
    np.testing.assert_array_equal(corpus.texts.array[:], TAGS)
    assert corpus.text_to_image.tolist() == [0, 1, 2, 3, 4]
    assert read(tmp_path, order="first").stages["test"].queries.tolist() == [0]


def test_image_features_where_present(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((5, 7))
    corpus = read(write(tmp_path, IAll=features))
    assert isinstance(corpus.images, Features)
    np.testing.assert_allclose(corpus.images[3][0], features[3], rtol=1e-6)


def test_all_matrices_may_be_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    (tmp_path / "together").mkdir()
    savemat(tmp_path / "together" / "all.mat", {"LAll": LABELS, "YAll": TAGS})
    assert read(tmp_path / "together").fingerprint == read(write(tmp_path / "apart")).fingerprint


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        ({"YAll": TAGS[:4]}, "LAll has 5 rows, YAll has 4 rows"),
        ({"LAll": LABELS * 2}, "LAll row 0 holds numbers other than 0 and 1"),
        ({"IAll": np.zeros((5, 2, 2, 3))}, r"IAll\.mat: IAll has shape \(5, 2, 2, 3\)"),
    ],
)
def test_bad_matrices_are_named(tmp_path: Path, matrices: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(write(tmp_path, **matrices))


def test_bad_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    savemat(tmp_path / "again.mat", {"LAll": LABELS})
    with pytest.raises(InputError, match="LAll is also in another"):
        read(tmp_path)
    (tmp_path / "again.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    with pytest.raises(InputError, match=r"again\.mat: not a readable MATLAB file"):
        read(tmp_path)
    (tmp_path / "again.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 400)
    with pytest.raises(InputError, match=r"again\.mat: a MATLAB 7\.3 file"):
        read(tmp_path)
    (tmp_path / "again.mat").unlink()
    (tmp_path / "YAll.mat").unlink()
    with pytest.raises(InputError, match="no matrix YAll"):
        read(tmp_path)


def test_mirflickr_at_full_size() -> None:
    shared = Path(os.environ.get("ITMBENCH_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    root = shared / "mirflickr25k"
    if not root.is_dir():
        pytest.skip(f"{root} is absent; set ITMBENCH_SHARED_DATA to the folder of real data")
    corpus = read_dcmh(root)
    assert [(count.found, count.published) for count in corpus.counts] == [(20_015,) * 2, (24,) * 2, (1_386,) * 2]
    assert corpus.labels is not None
    assert corpus.labels.sum(axis=1).mean() == pytest.approx(3.78, abs=0.005)
    assert isinstance(corpus.texts, Features)
    assert corpus.texts.array[:].sum(axis=1).mean() == pytest.approx(4.64, abs=0.005)
    sizes = {name: (len(stage.queries), len(stage.gallery)) for name, stage in corpus.stages.items()}
    assert sizes == {"val": (1_000, 9_000), "test": (2_000, 18_015)}
