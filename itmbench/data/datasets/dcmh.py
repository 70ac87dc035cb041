"""The label and tag matrices that cross-modal hashing papers exchange as MATLAB files.

Names as in Jiang & Li, "Deep Cross-Modal Hashing" (DCMH), CVPR 2017: ``LAll`` labels, ``YAll`` tags, ``IAll`` image
features; row i of each is item i.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat
from scipy.sparse import issparse

from itmbench.data.corpus import Corpus, Count, Features
from itmbench.data.reading import require_finite
from itmbench.data.splits import LabelledDataset
from itmbench.errors import InputError

PUBLISHED = {"items": 20_015, "labels": 24, "tags in the vocabulary": 1_386}


class DCMHMatrices(LabelledDataset):
    """The MATLAB matrices of the hashing papers, from all ``.mat`` files of a folder (MATLAB 5 to 7).

    ``LAll`` `[N, C]` holds labels and ``YAll`` `[N, T]` tags, which are the texts. Without ``IAll`` `[N, D]`, image
    features, the corpus has no images.

    Args:
        root: the folder of the ``.mat`` files.
        name: the dataset's name.
        **kwargs: arguments of ``LabelledDataset``, which hold the split, and of ``CorpusDataModule``.

    Raises:
        InputError: while reading: a matrix is missing, occurs twice or is not two-dimensional, numbers of rows differ,
            labels or tags are not 0 and 1, a file is unreadable, the split does not fit the data.
    """

    def __init__(
        self,
        root: str | Path,
        name: str = "mirflickr25k-dcmh",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, name, **kwargs)

    def inputs(self) -> list[Path]:
        return sorted(self.root.glob("*.mat"))

    def read(self) -> Corpus:
        root, matrices = self.root, _matrices(self.inputs())
        missing = [key for key in ("LAll", "YAll") if key not in matrices]
        if missing:
            raise InputError(
                f"{root}: no matrix {' or '.join(missing)} in the .mat files; expected LAll, YAll and optionally IAll"
            )
        labels, tags = (_binary(matrices[key], key, root) for key in ("LAll", "YAll"))
        rows = {key: len(matrix) for key, matrix in matrices.items()}
        if len(set(rows.values())) > 1:
            lengths = ", ".join(f"{key} has {count:,} rows" for key, count in rows.items())
            raise InputError(f"{root}: {lengths}; use matrices of one release")
        train, stages = self.split(len(labels))
        ids = [str(row) for row in range(len(labels))]
        counts = {"items": len(labels), "labels": labels.shape[1], "tags in the vocabulary": tags.shape[1]}
        published = PUBLISHED if self.name == "mirflickr25k-dcmh" else {}
        return Corpus(
            name=self.name,
            image_ids=ids,
            images=Features(matrices["IAll"]) if "IAll" in matrices else None,
            text_ids=ids,
            texts=Features(tags),
            text_to_image=np.arange(len(labels)),
            train=train,
            stages=stages,
            labels=labels,
            label_names=[str(column) for column in range(labels.shape[1])],
            counts=[Count(what, number, published.get(what)) for what, number in counts.items()],
        )


def _matrices(paths: Sequence[Path]) -> dict[str, NDArray[Any]]:
    """The matrices of some ``.mat`` files by name; other variables are not read."""
    matrices: dict[str, NDArray[Any]] = {}
    for path in paths:
        try:
            names = [name for name, _, _ in whosmat(path) if name in ("LAll", "YAll", "IAll")]
            content = loadmat(path, variable_names=names) if names else {}
        except NotImplementedError:
            raise InputError(f"{path}: a MATLAB 7.3 file; save it again in MATLAB with the option -v7") from None
        except Exception as error:  # scipy raises almost anything on damaged bytes
            raise InputError(f"{path}: not a readable MATLAB file ({error}); restore the original") from None
        for name in names:
            if name in matrices:
                raise InputError(f"{path}: {name} is also in another .mat file of the folder; keep one of them")
            matrix = content[name].toarray() if issparse(content[name]) else content[name]
            if matrix.ndim != 2 or not matrix.size:
                raise InputError(f"{path}: {name} has shape {matrix.shape}; expected one row of features per item")
            require_finite(f"{path}: {name}", matrix)
            matrices[name] = matrix
    return matrices


def _binary(matrix: NDArray[Any], name: str, root: Path) -> NDArray[np.uint8]:
    odd = np.flatnonzero(((matrix != 0) & (matrix != 1)).any(axis=1))
    if len(odd):
        raise InputError(f"{root}: {name} row {odd[0]} holds numbers other than 0 and 1; use the multi-hot matrix")
    return matrix.astype(np.uint8)
