"""The datasets by name: LightningDataModules over the readers of ``itmbench.data.formats``."""

from typing import Any, Literal

from itmbench.data.cache import cached, default_cache_dir
from itmbench.data.corpus import Corpus
from itmbench.data.datamodule import CorpusDataModule
from itmbench.data.formats.dcmh import read_dcmh
from itmbench.data.formats.feature_folder import read_feature_folder
from itmbench.data.formats.karpathy import read_flickr30k_tokens, read_karpathy
from itmbench.data.formats.mirflickr import read_mirflickr
from itmbench.data.formats.nuswide import read_nuswide
from itmbench.data.formats.regions import read_regions
from itmbench.data.mini.render import render
from itmbench.data.splits import Order


class KarpathyCaptions(CorpusDataModule):
    """Photographs with captions in Karpathy's JSON: Flickr8k, Flickr30K, COCO or a dataset of your own.

    Args:
        root: the folder of ``dataset_*.json`` (or ``.json.gz``).
        images: the folder of images; by default one of the usual names below ``root``.
        name: of the dataset; by default what the file says.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, images: str | None = None, name: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images, self.name = root, images, name

    def read(self) -> Corpus:
        return cached(read_karpathy, self.root, images=self.images, name=self.name)


class Flickr30KTokens(CorpusDataModule):
    """Flickr30K as its authors ship it: ``results_20130124.token`` with split lists.

    Args:
        root: the folder of the token file and of ``train.txt``, ``val.txt`` and ``test.txt``.
        images: the folder of images; by default one of the usual names below ``root``.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, images: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images = root, images

    def read(self) -> Corpus:
        return cached(read_flickr30k_tokens, self.root, images=self.images)


class PrecomputedRegions(CorpusDataModule):
    """Region features with captions, as SCAN and its successors ship them (``f30k_precomp``).

    Args:
        root: the folder of ``{train,dev,test}_ims.npy``, ``_caps.txt`` and ``_ids.txt``.
        captions_per_image: how many captions in a row belong to one image.
        name: of the dataset.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(self, root: str, captions_per_image: int = 5, name: str = "flickr30k-regions", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.captions_per_image, self.name = root, captions_per_image, name

    def read(self) -> Corpus:
        return cached(read_regions, self.root, captions_per_image=self.captions_per_image, name=self.name)


class MirFlickr25K(CorpusDataModule):
    """MirFlickr-25K: photographs with user tags and 24 (or 38) labels.

    Args:
        root: the folder that holds ``mirflickr/`` and the annotations.
        annotations: the folder of the ``<label>.txt`` files; by default one of the two usual ones.
        labels: "potential", the 24 that papers use, or "all" with the 14 stricter ones.
        text: "tags" as words, or "bow", the multi-hot tag vector.
        queries: test queries.
        train: training items, before validation queries are carved out of them.
        val: validation queries; a tenth of ``train`` by default.
        order: how queries are chosen: "seeded", "first" or "last".
        split_seed: seed of the choice.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self,
        root: str,
        annotations: str | None = None,
        labels: Literal["potential", "all"] = "potential",
        text: Literal["tags", "bow"] = "tags",
        queries: int = 2_000,
        train: int = 10_000,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.options: dict[str, Any] = {"annotations": annotations, "labels": labels, "text": text}
        self.options |= {"queries": queries, "train": train, "val": val, "order": order, "seed": split_seed}

    def read(self) -> Corpus:
        return cached(read_mirflickr, self.root, **self.options)


class NUSWide(CorpusDataModule):
    """NUS-WIDE: photographs with user tags and 21, 10 or 81 concepts.

    Args:
        root: the folder of ``ImageList``, ``Groundtruth``, ``ConceptsList`` and ``NUS_WID_Tags``.
        images: the folder of images; by default ``Flickr`` below ``root``.
        concepts: "tc21" or "tc10", the most frequent ones, or "all" 81.
        require_tag: keep only items with one of the 1,000 tags (190,421 items, not 195,834, with "tc21").
        text: "tags" as words, or "bow", the multi-hot tag vector.
        queries: test queries; by default the published number for ``concepts``.
        train: training items, before validation queries are carved out of them; by default the published number.
        val: validation queries; a tenth of ``train`` by default.
        order: how queries are chosen: "seeded", "first" or "last".
        split_seed: seed of the choice.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self,
        root: str,
        images: str | None = None,
        concepts: Literal["tc21", "tc10", "all"] = "tc21",
        require_tag: bool = False,
        text: Literal["tags", "bow"] = "tags",
        queries: int | None = None,
        train: int | None = None,
        val: int | None = None,
        order: Order = "seeded",
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.options: dict[str, Any] = {"images": images, "concepts": concepts, "require_tag": require_tag}
        self.options |= {
            "text": text,
            "queries": queries,
            "train": train,
            "val": val,
            "order": order,
            "seed": split_seed,
        }

    def read(self) -> Corpus:
        return cached(read_nuswide, self.root, **self.options)


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


class FeatureFolder(CorpusDataModule):
    """Features of your own: a folder of ``images.npy``, ``texts.npy``, ``text_to_image.npy`` and ``splits.json``.

    Args:
        root: the folder.
        name: of the dataset; by default that of the folder.
        batch_size: pairs in a training batch, on each device; small sets have few.
        num_workers: loader processes; by default none, since rows are read faster than processes start.
        **kwargs: those of ``CorpusDataModule``.
    """

    def __init__(
        self, root: str, name: str | None = None, batch_size: int = 32, num_workers: int | None = 0, **kwargs: Any
    ) -> None:
        super().__init__(batch_size=batch_size, num_workers=num_workers, **kwargs)
        self.root, self.name = root, name

    def read(self) -> Corpus:
        return cached(read_feature_folder, self.root, name=self.name)


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
