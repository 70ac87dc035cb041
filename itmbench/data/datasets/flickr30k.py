"""Flickr30K as its authors distribute it."""

from pathlib import Path
from typing import Any

import numpy as np

from itmbench.data.corpus import Corpus, Strings
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.datasets.captions import count, find_images, image_folder, split_stages
from itmbench.data.reading import read_lines, require, require_unique
from itmbench.errors import InputError
from itmbench.files import real_path


class Flickr30KTokens(CorpusDataModule):
    """Flickr30K as its authors distribute it: ``results_20130124.token`` with split lists.

    The token file has lines ``name.jpg#k<TAB>caption``. ``train.txt``, ``val.txt`` and ``test.txt`` list images, one a
    line, with or without ``.jpg``. Images in no list are left out.

    Args:
        root: the folder of the four files.
        images: the image folder; by default the first of the usual names below ``root``. If none of these exists, the
            corpus has texts only.
        **kwargs: arguments of ``CorpusDataModule``.

    Raises:
        InputError: while reading: files or images are missing, a line has no tab or no caption, an image is in two
            lists or has no caption, a caption id occurs twice.
    """

    def __init__(self, root: str | Path, images: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images = real_path(root), image_folder(root, images)
        self.tokens = self.root / "results_20130124.token"
        self.lists = {split: self.root / f"{split}.txt" for split in ("train", "val", "test")}

    def inputs(self) -> list[Path]:
        return [self.tokens, *self.lists.values(), *([self.images] if self.images else [])]

    def read(self) -> Corpus:
        require([self.tokens, *self.lists.values()], "results_20130124.token with train.txt, val.txt and test.txt")
        split_of = self._splits()
        row_of: dict[str, int] = {}
        text_ids, captions, owners = [], [], []
        for number, line in enumerate(read_lines(self.tokens), start=1):
            text_id, tab, caption = line.partition("\t")
            image, mark, _ = text_id.rpartition("#")
            if not tab or not mark or not caption.strip():
                raise InputError(
                    f"{self.tokens}, line {number}: expected 'name.jpg#k<TAB>caption', found {line[:60]!r}"
                )
            if image not in split_of:
                continue
            text_ids.append(text_id)
            captions.append(caption.strip())
            owners.append(row_of.setdefault(image, len(row_of)))
        silent = next((image for image in split_of if image not in row_of), None)
        if silent is not None:
            raise InputError(
                f"{self.tokens}: no caption of {silent}, which {split_of[silent]}.txt lists; correct the list"
            )
        require_unique(text_ids, str(self.tokens))

        filenames = list(row_of)
        train, stages = split_stages(np.array([split_of[image] for image in filenames]), self.root)
        return Corpus(
            name="flickr30k",
            image_ids=filenames,
            images=find_images(self.images, filenames),
            text_ids=text_ids,
            texts=Strings(captions),
            text_to_image=np.array(owners, dtype=np.int64),
            train=train,
            stages=stages,
            counts=count("flickr30k", len(filenames), len(captions), train, stages),
        )

    def _splits(self) -> dict[str, str]:
        """The split of every listed image."""
        split_of: dict[str, str] = {}
        for split, path in self.lists.items():
            for number, line in enumerate(read_lines(path), start=1):
                image = line.strip()
                if not image:
                    continue
                image = image if image.endswith(".jpg") else f"{image}.jpg"
                if image in split_of:
                    raise InputError(
                        f"{path}, line {number}: {image} is already in {split_of[image]}.txt; list it once"
                    )
                split_of[image] = split
        return split_of
