"""The mini corpora as datasets: rendered on first use, then read like the real ones."""

from typing import Any

from itmbench.data.cache import cached, default_cache_dir
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.datasets.captions import read_karpathy
from itmbench.data.datasets.mirflickr import read_mirflickr
from itmbench.data.datasets.nuswide import read_nuswide
from itmbench.data.mini.render import render


class MiniCorpus(CorpusDataModule):
    """Base of the mini corpora, which are rendered on first use and then read like the real ones.

    Args:
        render_seed: same seed, same pictures and words.
        **kwargs: those of ``CorpusDataModule``.
    """

    name: str

    def __init__(self, render_seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.render_seed = render_seed

    def root(self) -> str:
        """The folder of the rendered corpus."""
        return str(render(self.name, default_cache_dir().parent / "mini", self.render_seed))


class Flickr30KMini(MiniCorpus):
    """Rendered scenes with captions and near twins, in the layout of Flickr30K (Karpathy's JSON)."""

    name = "flickr30k-mini"

    def read(self) -> Corpus:
        return cached(read_karpathy, self.root(), name=self.name)


class MirFlickrMini(MiniCorpus):
    """Rendered scenes with noisy tags and 24 labels, in the layout of MirFlickr-25K."""

    name = "mirflickr-mini"

    def read(self) -> Corpus:
        return cached(read_mirflickr, self.root(), queries=300, train=1_600, name=self.name)


class NUSWideMini(MiniCorpus):
    """Rendered scenes with noisy tags and concepts of which 21 count, in the layout of NUS-WIDE."""

    name = "nuswide-mini"

    def read(self) -> Corpus:
        return cached(read_nuswide, self.root(), queries=300, train=1_600, name=self.name)
