"""The label and tag matrices that cross-modal hashing papers exchange as MATLAB files.

Names as in Jiang & Li, "Deep Cross-Modal Hashing" (DCMH), CVPR 2017: ``LAll`` labels, ``YAll`` tags, ``IAll`` image
features; row i of each is item i.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat, whosmat

from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, Features
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.reader import reads
from itmbench.data.splits import Order, label_split
from itmbench.errors import InputError

PUBLISHED = {"items": 20_015, "labels": 24, "tags in the vocabulary": 1_386}


def _inputs(root: Path | str, **_: object) -> list[Path]:
    return sorted(Path(root).glob("*.mat"))


@reads(_inputs)
def read_dcmh(
    root: Path | str,
    queries: int = 2_000,
    train: int = 10_000,
    val: int | None = None,
    order: Order = "seeded",
    seed: int = 0,
    name: str = "mirflickr25k-dcmh",
) -> Corpus:
    """A corpus from ``LAll`` `[N, C]`, ``YAll`` `[N, T]` and, where present, ``IAll`` `[N, D]` in the ``.mat`` files.

    Texts are the rows of ``YAll``. Without ``IAll`` there are no images.

    Args:
        root: the folder of the ``.mat`` files (MATLAB 5 to 7; not 7.3, which is HDF5).
        queries: test queries; see `label_split`, as for the next four.
        train: training items before validation queries are carved out.
        val: validation queries.
        order: which items are queries ("first" in DCMH's own code).
        seed: of a seeded order.
        name: of the corpus.

    Raises:
        InputError: a matrix is missing, given twice or not two-dimensional, numbers of rows differ, labels or tags are
            not 0 and 1, a file is not readable, the sizes of the split do not fit.
    """
    matrices = _matrices(Path(root))
    missing = [key for key in ("LAll", "YAll") if key not in matrices]
    if missing:
        raise InputError(f"{root}: no matrix {' or '.join(missing)} in the .mat files; expected LAll, YAll, maybe IAll")
    labels, tags = (_binary(matrices[key], key, root) for key in ("LAll", "YAll"))
    rows = {key: len(matrix) for key, matrix in matrices.items()}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{key} has {count:,} rows" for key, count in rows.items())
        raise InputError(f"{root}: {found}; use matrices of one release")
    fit, stages = label_split(len(labels), queries, train, val, order, seed)
    ids = [str(row) for row in range(len(labels))]
    found_counts = {"items": len(labels), "labels": labels.shape[1], "tags in the vocabulary": tags.shape[1]}
    published = PUBLISHED if name == "mirflickr25k-dcmh" else {}
    return Corpus(
        name=name,
        image_ids=ids,
        images=Features(matrices["IAll"]) if "IAll" in matrices else None,
        text_ids=ids,
        texts=Features(tags),
        text_to_image=np.arange(len(labels)),
        train=fit,
        stages=stages,
        labels=labels,
        label_names=[str(column) for column in range(labels.shape[1])],
        counts=[Count(what, number, published.get(what)) for what, number in found_counts.items()],
    )


def _matrices(root: Path) -> dict[str, NDArray[Any]]:
    """The matrices by name, from all ``.mat`` files of the folder; other variables are not read."""
    matrices: dict[str, NDArray[Any]] = {}
    for path in _inputs(root):
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
            if content[name].ndim != 2:
                raise InputError(
                    f"{path}: {name} has shape {content[name].shape}; expected one row of features an item"
                )
            matrices[name] = content[name]
    return matrices


def _binary(matrix: NDArray[Any], name: str, root: Path | str) -> NDArray[np.uint8]:
    odd = np.flatnonzero(((matrix != 0) & (matrix != 1)).any(axis=1))
    if len(odd):
        raise InputError(f"{root}: {name} row {odd[0]} holds numbers other than 0 and 1; use the multi-hot matrix")
    return matrix.astype(np.uint8)


class DCMHMatrices(CorpusDataModule):
    """The MATLAB matrices of the hashing papers: ``LAll`` (labels), ``YAll`` (tags) and, where present, ``IAll``.

    Args:
        root: the folder of the ``.mat`` files.
        queries: test queries.
        train: training items, before validation queries are carved out of them.
        val: validation queries; a tenth of ``train`` by default.
        order: how queries are chosen: "seeded", "first" or "last".
        split_seed: seed of the choice.
        name: of the dataset.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self,
        root: str,
        queries: int = 2_000,
        train: int = 10_000,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        name: str = "mirflickr25k-dcmh",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.options: dict[str, Any] = {"queries": queries, "train": train, "val": val}
        self.options |= {"order": order, "seed": split_seed, "name": name}

    def read(self) -> Corpus:
        return cached(read_dcmh, self.root, **self.options)
