"""Matcher: what every method is."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.optim.lr_scheduler import LambdaLR

from itmbench.data.corpus import Corpus, Rows
from itmbench.data.datamodule import Sources
from itmbench.encoders import Embeddings, Encoder, ScratchTextEncoder, TimmImageEncoder
from itmbench.encoders.base import PRETRAINING, Inputs
from itmbench.encoders.embeddings import require_embeddings
from itmbench.encoders.stored import centre, encode_corpus, encode_once, is_encoded_once, processor_of
from itmbench.errors import InputError
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol
from itmbench.evaluation.scoring import Scorer
from itmbench.methods.chosen import Chosen
from itmbench.methods.distributed import gather_embeddings, gather_rows
from itmbench.methods.losses import positives
from itmbench.methods.trained import Modality as Modality
from itmbench.methods.votes import LabelVotes, joined
from itmbench.options import require_range

SCALAR_RATE = 10.0
"""Factor on the learning rate of scalars such as temperatures: a step moves a weight by about the rate, whatever its
gradient, and a temperature has further to go than the weights of a layer."""
MOST_DIMS = 1 << 20
"""Largest size of a vector; more is a typing error, and would exceed the memory."""
Batch = dict[str, Any]


class Matcher(Chosen):
    """Base of all methods: two encoders, a score and a training loss.

    A method sets ``loss`` and overrides ``embed``, ``score`` and ``training_loss`` where they differ from its own.
    Encoding an item must not depend on what else is in its batch. A method whose layers depend on the data makes them
    in ``adapt``, and in ``adapt_to_state`` from the weights of a checkpoint.

    Args:
        image: the image encoder; by default a tiny vision transformer trained from scratch.
        text: the text encoder; by default a small BERT trained from scratch.
        lr: peak learning rate; each encoder multiplies it by its own ``lr_multiplier``, scalars by ``SCALAR_RATE``.
        weight_decay: of AdamW, on matrices; vectors (biases, norms) are not decayed.
        warmup: fraction of the steps in which the rate rises from 0; it then falls to 0 along a cosine.
        protocol: how to evaluate; by default the protocol of the data (labels or captions).
        votes: adds the label votes of nearest training items to the test embeddings of a method that compares pooled
            vectors by their cosine; needs labels.

    Raises:
        InputError: ``votes`` with a method that has a score of its own, or a number is out of its range.
    """

    reads_tokens: ClassVar[bool] = True
    """Whether ``embed`` uses the tokens of an encoder; loading is faster for methods that do not."""
    loss: nn.Module
    """(scores `[B, B]`, positives `[B, B]`) -> a scalar."""
    trains_by_steps: ClassVar[bool] = True
    """Whether optimizer steps train it; a closed form has no training budget."""

    switchable = Chosen.switchable | {"votes"}

    def __init__(
        self,
        image: Encoder | None = None,
        text: Encoder | None = None,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        protocol: CaptionProtocol | LabelProtocol | None = None,
        votes: LabelVotes | None = None,
    ) -> None:
        super().__init__()
        for option, value, low, high in (
            ("lr", lr, sys.float_info.min, 10.0),
            ("weight_decay", weight_decay, 0.0, sys.float_info.max),
            ("warmup", warmup, 0.0, 1.0),
            ("dim", self._arguments.get("dim", 1), 1, MOST_DIMS),
        ):
            require_range(f"model.{option}", value, low, high)
        if votes is not None and self.scorer is not None:
            raise InputError(
                f"{type(self).__name__}: scores pairs itself, so label votes cannot be added; remove votes"
            )
        self.votes = votes
        self.image = TimmImageEncoder() if image is None else image
        self.text = ScratchTextEncoder() if text is None else text
        self.lr, self.weight_decay, self.warmup = lr, weight_decay, warmup
        self.protocol = protocol
        self._stage: str | None = None

    # --- what a method is -------------------------------------------------------------------------------------------

    def encode_image(self, images: Inputs) -> Embeddings:
        """Embeddings `[B, ...]` of a batch from the image encoder's processor."""
        items = self.embed(self.image(images), "image")
        return items if self.training else self.at_test(items, "image")

    def encode_text(self, tokens: Inputs) -> Embeddings:
        """Embeddings `[B, ...]` of a batch from the text encoder's processor."""
        items = self.embed(self.text(tokens), "text")
        return items if self.training else self.at_test(items, "text")

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Embeddings `[B, ...]` from what the encoder of a modality returns: its pooled vectors."""
        return Embeddings(items.pooled)

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        """Scores `[Ni, Nt]` of every image with every text: the cosine of the pooled vectors."""
        return normalize(image.pooled, dim=-1) @ normalize(text.pooled, dim=-1).T

    @property
    def scorer(self) -> Scorer | None:  # type: ignore[override]
        """``score``, if a method has its own."""
        return None if type(self).score is Matcher.score else self.score

    def training_loss(self, batch: Batch) -> Tensor:
        """The loss, a scalar, of a batch of pairs: that of their scores."""
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives)

    def adapt(self, corpus: Corpus) -> None:
        """Fit whatever depends on a corpus to its training part: vocabulary, feature width, number of labels.

        Raises:
            InputError: the method or an encoder does not suit the corpus.
        """
        if self.votes is not None and corpus.labels is None:
            raise InputError(f"{corpus.name}: has no labels, so nothing can vote; remove votes")
        if corpus.images is None:
            raise InputError(f"{corpus.name}: this copy has no images, so there is nothing to match")
        self.image.fit(corpus.images, corpus.train)
        self.text.fit(corpus.texts, corpus.texts_of(corpus.train))

    # --- what methods share -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """One line, in place of a list of all modules."""
        encoders = {"image": self.image, "text": self.text}
        facts = [f"{side}={type(e).__name__}({e._arguments.get('name', '')})" for side, e in encoders.items()]
        facts += [f"dim={self._arguments['dim']}"] * ("dim" in self._arguments)
        number = sum(parameter.numel() for parameter in self.parameters())
        trained = f", trained on {self.trained_on}" if self.trained_on else ""
        return f"{type(self).__name__}({', '.join(facts)}): {number:,} parameters{trained}"

    def per_modality(self, layer: Callable[[int], nn.Module]) -> nn.ModuleDict:
        """A layer for "image" and one for "text", made for the widths of the encoders."""
        return nn.ModuleDict({"image": layer(self.image.width), "text": layer(self.text.width)})

    def encode_pairs(self, batch: Batch) -> tuple[Embeddings, Embeddings, Tensor]:
        """Image embeddings, text embeddings and positives, bool `[B, B]`, of a training batch.

        B spans all devices, so that a loss sees the same negatives on one device or on many.
        """
        image = gather_embeddings(self, require_embeddings(self.encode_image(batch["image"]), self))
        text = gather_embeddings(self, require_embeddings(self.encode_text(batch["text"]), self))
        labels = gather_rows(self, batch["labels"]) if "labels" in batch else None
        return image, text, positives(gather_rows(self, batch["image_index"]), labels)

    @property
    def pretraining(self) -> str:
        """Pretraining class of the method: the highest of its two encoders."""
        return max((self.image.pretraining, self.text.pretraining), key=PRETRAINING.index)

    @property
    def choices(self) -> dict[str, Any]:
        """What validation chose beside the checkpoint, by name; plain values, shown in the method's row."""
        return {} if self.votes is None else {"vote": round(float(self.votes.weight), 6)}

    def training_labels(self, corpus: Corpus) -> Tensor:
        """Labels of the training images, corrupted ones included, float32 `[N, C]`; an InputError if there are none."""
        if corpus.labels_trained_with is None:
            raise InputError(
                f"{corpus.name}: has no labels, and {type(self).__name__} needs labels; use a dataset with labels"
            )
        return torch.from_numpy(corpus.labels_trained_with[corpus.train]).float()

    # --- Lightning --------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Adapt to the data, and set what its loaders read."""
        self.adapt(self.data.corpus)
        self._stage, self._encoded = stage, {}
        self._hand_over()

    def teardown(self, stage: str) -> None:
        self._stage = None

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; loaders that exist already then read by the restored vocabulary and frozen weights."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._hand_over()
        return result

    def _hand_over(self) -> None:
        """Encode with frozen encoders what the stage needs, and set what the loaders read."""
        if self._stage is None:
            return
        stage, data, corpus = self._stage, self.data, self.data.corpus
        if stage == "fit":
            images = np.union1d(corpus.train, data.stage("val").images)
        else:
            images = data.stage("val" if stage == "validate" else "test").images
        device = self.trainer.strategy.root_device
        loaded = encode_corpus(corpus, (self.image, self.text), (images, corpus.texts_of(images)), device)
        if stage == "fit":
            centre(self.image, loaded.images, corpus.train)
            centre(self.text, loaded.texts, corpus.texts_of(corpus.train))
        probes = None
        if stage == "test" and is_encoded_once(self.text, corpus.texts) and len(data.probes):
            probes = encode_once(self.text, data.probes.strings, np.arange(len(data.probes)), device)
        read = self.reads_tokens
        processors = processor_of(self.image, loaded.images, read), processor_of(self.text, loaded.texts, read)
        data.attach(Sources(loaded, *processors, probes))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.training_loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["image_index"]))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine decay, stepped every batch."""
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise InputError(
                "the learning rate schedule needs a last step: set trainer.max_epochs or trainer.max_steps"
            )
        # The fused kernel is several times faster on a CPU, but Lightning cannot clip its gradients in mixed precision.
        fused = not self.trainer.precision.endswith("-mixed")
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=self.lr, fused=fused)
        warmup = max(1, round(self.warmup * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}

    # --- label votes ------------------------------------------------------------------------------------------------

    def candidates(self) -> Sequence[Any]:
        return () if self.votes is None else self.votes.weights

    def as_candidate(self, items: Embeddings, modality: Modality, candidate: Any) -> Embeddings:
        assert self.votes is not None
        width = items.pooled.shape[1] - self.votes.image_labels.shape[1]
        return Embeddings(joined(items.pooled[:, :width], items.pooled[:, width:], candidate))

    def choose(self, candidate: Any) -> None:
        assert self.votes is not None
        self.votes.weight.fill_(candidate)

    def fill(self) -> None:
        if self.votes is None:
            return
        corpus, labels = self.data.corpus, self.data.corpus.labels_trained_with
        rows: dict[Modality, Rows] = {"image": corpus.train, "text": corpus.texts_of(corpus.train)}
        kept = self.encode_training(rows, lambda items, modality: Embeddings(self.embed(items, modality).pooled))
        assert labels is not None
        of_images = torch.from_numpy(labels[rows["image"]])
        of_texts = torch.from_numpy(labels[corpus.image_trained_with[rows["text"]]])
        self.votes.fill(kept["image"].pooled, kept["text"].pooled, of_images, of_texts)

    def at_test(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Test embeddings of embedded items: the vector and its label votes; while choosing, both as they are."""
        if self.votes is None:
            return items
        vectors, votes = normalize(items.pooled.float(), dim=1), self.votes(items.pooled, modality)
        if self.choosing:
            return Embeddings(torch.cat([vectors, votes], dim=1))
        return Embeddings(joined(vectors, votes, self.votes.weight))

    # --- details ----------------------------------------------------------------------------------------------------

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Trained weights by learning rate and decay; scalars at a rate of their own."""
        multiplier = {id(p): SCALAR_RATE for p in self.parameters() if p.ndim == 0}
        multiplier |= {id(p): e.lr_multiplier for e in (self.image, self.text) for p in e.parameters()}
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                key = (self.lr * multiplier.get(id(parameter), 1.0), self.weight_decay if parameter.ndim > 1 else 0.0)
                groups.setdefault(key, []).append(parameter)
        return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
