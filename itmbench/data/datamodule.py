"""A corpus as loaders: pairs to train on; images and texts apart to evaluate."""

import contextlib
import copy
import inspect
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from itmbench.data.batches import (
    EpochOrder,
    ItemCollate,
    PairCollate,
    Pairs,
    ProbeCollate,
    Processor,
    global_seed,
    loader_workers,
    short_first,
)
from itmbench.data.cache import cached
from itmbench.data.corpus import Corpus, Count, Rows, Stage, Strings
from itmbench.data.groups import with_groups
from itmbench.data.noise import shuffled_labels, shuffled_pairs
from itmbench.data.perturb import Probes, caption_probes
from itmbench.errors import InputError
from itmbench.files import digest
from itmbench.processors import loaders


@dataclass(frozen=True)
class Sources:
    """What the loaders read, by corpus row, and the processors that turn it into batches.

    The output of a frozen encoder replaces the images or texts that it reads (`itmbench.encoders.stored`).
    """

    corpus: Corpus
    image: Processor
    text: Processor
    probes: Any = None  # perturbed captions, by their row in ``CorpusDataModule.probes``


class CorpusDataModule(L.LightningDataModule):
    """Base of all datasets: a subclass says how its corpus is read.

    Training batches hold pairs: ``image`` and ``text`` (what the processors make), ``image_index`` and ``text_index``
    `[B]` (corpus rows), and ``labels`` `[B, C]` where the corpus has them. Evaluation has two loaders, images first:
    batches of ``image`` or ``text`` with their ``index`` `[B]`, so that no method can see which text belongs to which
    image. A test of captions has a third, of captions made wrong by rules: ``text``, the ``index`` of the true caption,
    and the number of the rule as ``probe`` `[B]`.

    Training order and random crops depend only on the run's seed, the epoch and the item (`itmbench.data.batches`), not
    on the number of loader processes.

    Args:
        batch_size: pairs in a training batch, on each device.
        eval_batch_size: items in an evaluation batch, on each device.
        num_workers: loader processes; by default one fewer than the processors (shared among devices), at most eight.
        shuffled_captions: fraction of the training texts that are paired with a wrong image; always the same ones.
        corrupted_labels: fraction of the training images that get the different labels of another one; always the same
            ones. Evaluation uses the true labels, also of training images in a gallery.

    Raises:
        InputError: ``shuffled_captions`` or ``corrupted_labels`` is not a share.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 256,
        num_workers: int | None = None,
        shuffled_captions: float = 0.0,
        corrupted_labels: float = 0.0,
    ) -> None:
        super().__init__()
        for what, share in (("shuffled_captions", shuffled_captions), ("corrupted_labels", corrupted_labels)):
            if not 0 <= share <= 1:
                raise InputError(f"{what}: {share} is not a share; give a number from 0 to 1")
        for what, number, lowest in (
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers or 0, 0),
        ):
            if number < lowest:
                raise InputError(f"data.{what}: {number} is too few; give {lowest} or more")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.shuffled_captions, self.corrupted_labels = shuffled_captions, corrupted_labels
        self.num_workers = num_workers
        self.runners = 1  # programs that share the processors
        self._corpus: Corpus | None = None
        self._sources: Sources | None = None
        self._first_epoch = 0

    def read(self) -> Corpus:
        """Read the dataset from disk; `corpus` calls it on first use, and takes a cached result if there is one.

        Raises:
            InputError: a file is missing or wrong.
        """
        raise NotImplementedError

    def inputs(self) -> list[Path] | None:
        """Every file that `read` may parse and every folder whose listing it may use; None turns the cache off.

        A subclass that names its inputs keeps its constructor arguments as attributes of the same names, because they
        identify the cached corpus together with the contents of the inputs.
        """
        return None

    @property
    def corpus(self) -> Corpus:
        """The dataset, read on first use; an InputError if something on disk is missing or wrong."""
        if self._corpus is None:
            inputs = self.inputs()
            if inputs is None:
                corpus = self._read_with_groups()
            else:
                dataset, options = type(self), self._options()
                with contextlib.suppress(OSError, TypeError):  # no source text, as in an interactive session
                    options["source"] = digest(inspect.getsource(dataset))  # a subclass may be edited
                corpus = cached(f"{dataset.__module__}.{dataset.__qualname__}", options, inputs, self._read_with_groups)
            self._corpus = self._with_noise(corpus)
        return self._corpus

    def _read_with_groups(self) -> Corpus:
        return with_groups(self.read())

    def with_corpus(self, corpus: Corpus) -> "CorpusDataModule":
        """A copy of this datamodule over another corpus."""
        other = copy.copy(self)
        other._corpus = corpus
        if self._corpus is None or corpus.images is not self._corpus.images or corpus.texts is not self._corpus.texts:
            other._sources = None  # of other contents
        other.__dict__.pop("probes", None)
        return other

    def prepare_data(self) -> None:
        """Read the corpus in one process, which fills the cache for all others."""
        _ = self.corpus

    def setup(self, stage: str) -> None:
        """Read the corpus, so that errors in it are reported before any model runs."""
        self._first_epoch = 0
        if self.corpus.images is None:
            raise InputError(
                f"{self.corpus.name}: this copy has no images, so there is nothing to encode; add its image folder"
            )

    def state_dict(self) -> dict[str, int]:
        """The epoch that a resumed run begins with; loader processes prefetch it before it begins."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        return {"epoch": epochs.ready if loop.epoch_loop.batch_progress.is_last_batch else epochs.processed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume with the epoch in ``state_dict``; raise an InputError if there is none."""
        epoch: Any = state_dict.get("epoch") if isinstance(state_dict, dict) else None
        if not isinstance(epoch, int):
            raise InputError(f"{type(self).__name__}: the checkpoint does not say which epoch is next; use another one")
        self._first_epoch = epoch

    @cached_property
    def probes(self) -> Probes:
        """Perturbed captions of the test images."""
        return caption_probes(self.corpus, self.stage("test").images)

    def attach(self, sources: Sources) -> None:
        """Set what the loaders read; called by the model's ``setup``."""
        self._sources = sources

    def training_texts(self, devices: int = 1) -> Rows:
        """Texts of the training images, a pair each; an InputError if they do not fill one batch on every device."""
        pairs = self.corpus.texts_of(self.corpus.train)
        if len(pairs) < self.batch_size * devices:
            where = f" on each of {devices} devices" if devices > 1 else ""
            raise InputError(
                f"{self.corpus.name}: {len(pairs)} training pairs do not fill one batch{where}; set data.batch_size to "
                f"{len(pairs) // devices} or less"
            )
        return pairs

    def train_dataloader(self) -> DataLoader[Any]:
        """Training images paired with each of their texts, in random order; the last partial batch is dropped."""
        pairs = self.training_texts(1 if self.trainer is None else self.trainer.world_size)
        corpus, sources, dataset = self.corpus, self.sources, Pairs(pairs)
        collate = PairCollate(
            sources.corpus.images,
            sources.corpus.texts,
            sources.image,
            sources.text,
            corpus.image_trained_with,
            corpus.labels_trained_with,
            global_seed(),
        )
        return self._loader(dataset, collate, self.batch_size, sampler=self._order(dataset), drop_last=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Images, then texts, of the validation stage."""
        return self.eval_dataloaders("val")

    def test_dataloader(self) -> list[DataLoader[Any]]:
        """Images, then texts, of the test stage, then perturbed captions where there are any."""
        return [*self.eval_dataloaders("test"), *([self._probe_dataloader()] if len(self.probes) else [])]

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Images, then texts, of the test stage."""
        return self.eval_dataloaders("test")

    def stage(self, name: str) -> Stage:
        """Queries and gallery of "val" or "test"."""
        return self.corpus.stages[name]

    def eval_dataloaders(self, name: str) -> list[DataLoader[Any]]:
        """Images, then texts, of a stage. Texts come short ones first, which spares padding."""
        images = self.stage(name).images
        texts = self.corpus.texts_of(images)
        if isinstance(self.corpus.texts, Strings):
            texts = texts[short_first([self.corpus.texts[row] for row in texts])]
        return [self.items_dataloader("image", images), self.items_dataloader("text", texts)]

    def items_dataloader(self, modality: str, rows: Rows) -> DataLoader[Any]:
        """The images or texts of some corpus rows, as evaluation reads them."""
        return self._loader(rows, self._collate(modality), self.eval_batch_size)

    def batch(self, modality: str, rows: Rows) -> dict[str, Tensor]:
        """One batch of the images or texts of some corpus rows, made in this process as evaluation makes it."""
        return self._collate(modality)(rows.tolist())[modality]

    def _collate(self, modality: str) -> ItemCollate:
        sources = self.sources
        if modality == "image":
            return ItemCollate(modality, sources.corpus.images, sources.image)
        return ItemCollate(modality, sources.corpus.texts, sources.text)

    def _options(self) -> dict[str, Any]:
        """Constructor arguments of the subclasses, without those of this class."""
        mro = type(self).__mro__
        above = mro[: mro.index(CorpusDataModule)]
        names = {name for dataset in above for name in inspect.signature(dataset).parameters}
        names -= {"kwargs", *inspect.signature(CorpusDataModule).parameters}
        return {name: getattr(self, name) for name in names}

    def _order(self, dataset: Dataset[Any]) -> EpochOrder:
        if self.trainer is None:
            return EpochOrder(dataset)
        order = EpochOrder(dataset, self.trainer.world_size, self.trainer.global_rank)
        order.set_epoch(self._first_epoch)
        return order

    def _probe_dataloader(self) -> DataLoader[Any]:
        sources, probes = self.sources, self.probes
        order = short_first(probes.strings.strings)
        items = probes.strings if sources.probes is None else sources.probes
        return self._loader(order, ProbeCollate(items, sources.text, probes), self.eval_batch_size)

    def _with_noise(self, corpus: Corpus) -> Corpus:
        """The corpus with the requested wrong pairs and wrong labels."""
        if self.shuffled_captions:
            wrong = shuffled_pairs(corpus, self.shuffled_captions)
            counts = [*corpus.counts, Count("shuffled training captions", len(wrong))]
            corpus = replace(corpus, wrong_pairs=wrong, counts=counts)
        if self.corrupted_labels:
            wrong = shuffled_labels(corpus, self.corrupted_labels)
            counts = [*corpus.counts, Count("training images with wrong labels", len(wrong))]
            corpus = replace(corpus, wrong_labels=wrong, counts=counts)
        return corpus

    @property
    def sources(self) -> Sources:
        """What the loaders read."""
        if self._sources is None:
            raise RuntimeError("no sources: run this datamodule through a Trainer with a Matcher, or call attach()")
        return self._sources

    def loaders(self) -> int:
        """Number of loader processes on each device."""
        if self.num_workers is not None:
            return self.num_workers
        return loaders(self.runners * (self.trainer.num_devices if self.trainer else 1))

    def _loader(self, dataset: Any, collate: Any, batch_size: int, **options: Any) -> DataLoader[Any]:
        workers = loader_workers(self.loaders())
        return DataLoader(
            dataset,
            batch_size=batch_size,
            collate_fn=collate,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator(),  # or every epoch would advance the global generator, which dropout uses
            **options,
        )
