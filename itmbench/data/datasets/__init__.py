"""The datasets, one file each."""

from itmbench.data.datasets.captions import KarpathyCaptions
from itmbench.data.datasets.dcmh import DCMHMatrices
from itmbench.data.datasets.features import FeatureFolder
from itmbench.data.datasets.flickr30k import Flickr30KTokens
from itmbench.data.datasets.mini import Flickr30KMini, MiniCorpus, MirFlickrMini, NUSWideMini
from itmbench.data.datasets.mirflickr import MirFlickr25K
from itmbench.data.datasets.nuswide import NUSWide
from itmbench.data.datasets.regions import PrecomputedRegions

__all__ = [
    "DCMHMatrices",
    "FeatureFolder",
    "Flickr30KMini",
    "Flickr30KTokens",
    "KarpathyCaptions",
    "MiniCorpus",
    "MirFlickr25K",
    "MirFlickrMini",
    "NUSWide",
    "NUSWideMini",
    "PrecomputedRegions",
]
