"""SEDRA: semantic enhancement and dynamic relation awareness, with global and local alignment (Fig. 1)."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.explained import Attended
from itmbench.methods.losses import InfoNCE, TripletLoss, log_inverse_temperature, side_by_side
from itmbench.methods.sedra.fusion import RelationFusion
from itmbench.methods.sedra.inter import Inter, InterModalRelations, Words
from itmbench.methods.sedra.intra import Intra, IntraModalRelations
from itmbench.methods.token_matcher import TokenMatcher

Path = Literal["global", "fused", "local"]
VECTORS: tuple[Path, ...] = ("global", "fused")
"""Paths that compare one vector of an item with one of another."""


class SEDRA(TokenMatcher):
    """Semantic enhancement and dynamic relation awareness, implemented after its published description.

    Three paths score a pair, each with layers, a loss and a temperature of its own; at test their logits are added:
    ``global`` compares the pooled vectors, ``fused`` vectors in which the related tokens of an item take part (Figs. 2
    and 4), and ``local`` looks for each word among the related regions (Figs. 2 and 3). Where the encoders train, they
    learn from the teachers only, and validation chooses how much the logits of the other paths count.

    Args:
        dim: D, size of the common space of each path.
        intra: relations within an item; see `itmbench.methods.sedra.intra.IntraModalRelations`.
        intra_k: relations kept per token within an item.
        inter: relations between words and regions; see `itmbench.methods.sedra.inter.InterModalRelations`.
        words: relate words, each with a vector of its own, whatever its context; without it, the encoder's tokens.
        paths: those that are used.
        teachers: paths whose losses train the encoders; by default ``fused`` where an encoder trains from scratch, and
            all where those that train are pretrained. If none of them is used, all that are.
        student_weights: candidates for the weight of the other paths, where an encoder trains.
        loss: loss on the in-batch scores of each path; InfoNCE by default.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: ``paths`` is empty or names one twice, or a weight is not above 0 and at most 1.
    """

    student_weight: Tensor
    switchable = TokenMatcher.switchable | {"student_weights"}

    def __init__(
        self,
        dim: int = 256,
        intra: Intra = "topk",
        intra_k: int = 8,
        inter: Inter = "dynamic",
        words: bool = True,
        paths: Sequence[Path] = ("global", "fused", "local"),
        teachers: Sequence[Path] | None = None,
        student_weights: Sequence[float] = (1.0, 0.3, 0.1),
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not paths or len(set(paths)) < len(paths):
            raise InputError(f"SEDRA: paths is {list(paths)}; name one or more of global, fused and local, each once")
        if not student_weights or not all(0 < weight <= 1 for weight in student_weights):
            raise InputError(f"SEDRA: student_weights is {list(student_weights)}; give numbers above 0 and up to 1")
        self.paths = [path for path in (*VECTORS, "local") if path in paths]
        trained = [encoder for encoder in (self.image, self.text) if not encoder.freeze]
        if teachers is None:
            teachers = ("fused",) if any(encoder.pretraining == "scratch" for encoder in trained) else paths
        self.teachers = [path for path in self.paths if path in teachers] or self.paths
        self.students = [path for path in self.paths if trained and path not in self.teachers]
        self.dim, self.student_weights = dim, list(student_weights)
        self.register_buffer("student_weight", torch.tensor(float(student_weights[0])))
        self.loss = InfoNCE() if loss is None else loss
        self.losses = nn.ModuleList([self.loss, *(copy.deepcopy(self.loss) for _ in self.paths[1:])])
        self.vectors = nn.ModuleDict()
        if "global" in self.paths:
            self.vectors["global"] = self.per_modality(lambda width: PooledVector(width, dim))
        if "fused" in self.paths:
            self.vectors["fused"] = self.per_modality(lambda width: RelationFusion(width, dim, intra, intra_k))
        if "local" in self.paths:
            self.regions = Regions(self.image.width, dim, intra, intra_k)
            self.words = Words(self.text.width, dim, self.text.word_embedding if words else None)
            self.inter = InterModalRelations(inter)

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        """Vectors side by side, scaled so that a product adds the logits, as pooled, and the local path's tokens."""
        read = {path: items if path in self.teachers else items.detach() for path in self.paths}
        vectors = [layers[modality](read[path]) for path, layers in self.vectors.items()]  # type: ignore[index]
        losses = list(self.losses)[: len(vectors)]
        pooled = side_by_side(vectors, losses) if vectors else items.pooled.new_zeros(len(items), 1)
        if "local" not in self.paths:
            return Embeddings(pooled)
        if modality == "image":
            return Embeddings(pooled, *self.regions(read["local"]))
        return Embeddings(pooled, *self.words(read["local"], self.text.word_embedding, learns="local" in self.teachers))

    # --- the weight of the students ---------------------------------------------------------------------------------

    @property
    def choices(self) -> dict[str, Any]:
        return {"student_weight": round(float(self.student_weight), 6)} if self.students else {}

    def candidates(self) -> Sequence[Any]:
        return self.student_weights if self.students else ()

    def as_candidate(self, items: Embeddings, modality: Modality, candidate: Any) -> Embeddings:
        """Embeddings whose scores count the students' logits this many times."""
        pooled, tokens = items.pooled, items.tokens
        if set(self.students) & set(self.vectors):
            factors = [math.sqrt(candidate) if path in self.students else 1.0 for path in self.vectors]
            pooled = pooled * pooled.new_tensor(factors).repeat_interleave(self.dim)
        if "local" in self.students and modality == "text" and tokens is not None:
            tokens = tokens.clone()
            tokens[..., -1] *= candidate  # the shares of the words
        return replace(items, pooled=pooled, tokens=tokens)

    def choose(self, candidate: Any) -> None:
        self.student_weight.fill_(candidate)

    def at_test(self, items: Embeddings, modality: Modality) -> Embeddings:
        return items if self.choosing else self.as_candidate(items, modality, float(self.student_weight))

    # --- scores -----------------------------------------------------------------------------------------------------

    def within(self, items: Embeddings) -> Tensor:
        """Nothing `[B, 0]`: relations need no more than the tokens."""
        return items.pooled.new_zeros(len(items), 0)

    def score(self, image: Embeddings, text: Embeddings) -> Tensor:
        """The sum of the paths' logits, float32 `[Ni, Nt]`."""
        scores = (image.pooled @ text.pooled.T).float()
        if "local" not in self.paths:
            return scores
        return scores + log_inverse_temperature(self.losses[-1]).exp() * super().score(image, text)

    def score_block(self, image: Embeddings, text: Embeddings, within_image: Tensor, within_text: Tensor) -> Tensor:
        """Scores of the local path, float32 `[Ni, Nt]`."""
        with torch.autocast(image.pooled.device.type, enabled=False):
            scores: Tensor = self.inter(image, text)
        return scores

    def training_loss(self, batch: Batch) -> Tensor:
        """The sum of the paths' losses, each on its own scores."""
        image, text, positives = self.encode_pairs(batch)
        count = len(self.vectors)
        parts = zip(*(items.pooled.chunk(max(1, count), dim=1) for items in (image, text)), strict=True)
        scores = [Matcher.score(self, *map(Embeddings, pair)) for pair in parts] if count else []
        if "local" in self.paths:
            scores.append(super().score(image, text))
        return torch.stack([loss(own, positives) for loss, own in zip(self.losses, scores, strict=True)]).sum()

    def attended(self, image: Embeddings, text: Embeddings) -> Attended:
        """The logits of the paths, and what each word finds; an InputError if there is no local path."""
        if "local" not in self.paths:
            raise InputError(f"explain: this SEDRA has no local path to show (paths: {', '.join(self.paths)})")
        assert text.tokens is not None and text.mask is not None and image.mask is not None
        count = max(1, len(self.vectors))
        parts = zip(*(items.pooled.float().chunk(count, dim=1) for items in (image, text)), strict=True)
        paths = {name: float((ours * theirs).sum()) for name, (ours, theirs) in zip(self.vectors, parts, strict=False)}
        weight = float(self.student_weight) if "local" in self.students else 1.0
        words, scale = text.tokens[0, text.mask[0]], weight * float(log_inverse_temperature(self.losses[-1]).exp())
        found, regions = self.inter.find(image, words)[0], self.inter.regions(image, words)[0].T
        shares = words[:, -1].float() / weight
        local = scale * float((found * shares).sum())
        return Attended(
            {**paths, "local": local}, scale, shares, found, regions[:, 0], regions[:, 1:][:, image.mask[0, 1:]]
        )


class PooledVector(nn.Linear):
    """The pooled vector of an item in the common space, at unit length."""

    def forward(self, items: Embeddings) -> Tensor:  # type: ignore[override]
        """Project pooled `[B, W]` to `[B, D]`."""
        return normalize(super().forward(items.pooled), dim=-1)


class Regions(nn.Module):
    """The related regions of an image, and the whole image as one more.

    Args:
        width: W, size of the encoder's vectors.
        dim: D, size of the regions.
        intra: relations among the regions; see `itmbench.methods.sedra.intra.IntraModalRelations`.
        k: relations kept per region.
    """

    def __init__(self, width: int, dim: int, intra: Intra, k: int) -> None:
        super().__init__()
        self.whole, self.project = nn.Linear(width, dim), nn.Linear(width, dim)
        self.intra = IntraModalRelations(dim, intra, k)

    def forward(self, items: Embeddings) -> tuple[Tensor, Tensor]:
        """Turn tokens `[B, N, W]` into unit vectors with a column of zeros `[B, 1 + N, D + 1]`, and a mask."""
        assert items.tokens is not None and items.mask is not None
        related = self.intra(self.project(items.tokens), items.mask) * items.mask.unsqueeze(2)
        rows = torch.cat([self.whole(items.pooled).unsqueeze(1), related], dim=1)
        column = rows.new_zeros(*rows.shape[:2], 1)
        mask = torch.cat([items.mask.new_ones(len(rows), 1), items.mask], dim=1)
        return torch.cat([normalize(rows, dim=-1), column], dim=2), mask
