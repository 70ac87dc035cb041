"""The mini corpora as datasets: rendered on first use, then read like the genuine ones."""

from pathlib import Path
from typing import Any

from itmbench.data.cache import cache_folder
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.datasets.captions import KarpathyCaptions
from itmbench.data.datasets.mirflickr import MirFlickr25K
from itmbench.data.datasets.nuswide import NUSWide
from itmbench.data.mini.render import render
from itmbench.files import naming


class MiniCorpus(CorpusDataModule):
    """Base of the mini corpora.

    Args:
        render_seed: the same seed renders the same pictures and words.
        **kwargs: arguments of ``CorpusDataModule``.
    """

    name: str

    def __init__(self, render_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.render_seed = render_seed

    def root(self) -> Path:
        """The folder of the corpus, rendered if it does not exist."""
        folder = cache_folder("mini")
        with naming(folder):
            return render(self.name, folder, self.render_seed)

    def genuine(self) -> CorpusDataModule:
        """The dataset whose layout the corpus has, over its folder."""
        raise NotImplementedError

    def inputs(self) -> list[Path] | None:
        return self.genuine().inputs()

    def read(self) -> Corpus:
        return self.genuine().read()


class Flickr30KMini(MiniCorpus):
    """Rendered scenes with captions and near twins, in the layout of Flickr30K (Karpathy's JSON)."""

    name = "flickr30k-mini"

    def genuine(self) -> CorpusDataModule:
        return KarpathyCaptions(self.root(), name=self.name)


class MirFlickrMini(MiniCorpus):
    """Rendered scenes with noisy tags and 24 labels, in the layout of MirFlickr-25K."""

    name = "mirflickr-mini"

    def genuine(self) -> CorpusDataModule:
        return MirFlickr25K(self.root(), queries=300, train=1_600, name=self.name)


class NUSWideMini(MiniCorpus):
    """Rendered scenes with noisy tags and 54 concepts, the 21 most frequent as labels, in the layout of NUS-WIDE."""

    name = "nuswide-mini"

    def genuine(self) -> CorpusDataModule:
        return NUSWide(self.root(), queries=300, train=1_600, name=self.name)
