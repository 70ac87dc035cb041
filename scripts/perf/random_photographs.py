"""Random photographs with a random caption each, and labels if wanted: as large as real ones, and nothing to learn."""

import random
from pathlib import Path

import numpy as np
from PIL import Image

from itmbench.data.corpus import Corpus, ImageFiles, Stage, Strings
from itmbench.data.datamodule import CorpusDataModule

WORDS = [f"{first}{last}" for first in ("ba", "co", "du", "fi", "gre") for last in ("ck", "lla", "mpo", "nt", "rs")]


class RandomPhotographs(CorpusDataModule):
    """JPEG files of 500 x 375 pixels, as Flickr30K's are, with captions of a dozen words.

    Args:
        folder: where they are written.
        images: how many.
        labels: how many labels there are; 0 for captions alone.
        batch_size: pairs in a batch.
    """

    def __init__(self, folder: str, images: int, labels: int = 0, batch_size: int = 32) -> None:
        super().__init__(batch_size=batch_size)
        self.folder, self.images, self.labels = Path(folder), images, labels

    def read(self) -> Corpus:
        numbers, words = np.random.default_rng(0), random.Random(0)
        self.folder.mkdir(parents=True, exist_ok=True)
        names = [f"{number}.jpg" for number in range(self.images)]
        for name in names:
            small = Image.fromarray(numbers.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            small.resize((500, 375)).save(self.folder / name)
        rows = np.arange(self.images)
        labels = (numbers.random((self.images, self.labels)) < 0.2).astype(np.uint8) if self.labels else None
        return Corpus(
            name="random photographs",
            image_ids=names,
            images=ImageFiles(self.folder, names, np.array([(self.folder / name).stat().st_size for name in names])),
            text_ids=names,
            texts=Strings([" ".join(words.choices(WORDS, k=words.randint(8, 16))) for _ in rows]),
            text_to_image=rows,
            train=rows,
            stages={"val": Stage(rows, rows), "test": Stage(rows, rows)},
            labels=labels,
            label_names=[str(label) for label in range(self.labels)],
        )
