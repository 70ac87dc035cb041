"""Canonical correlation analysis as a cross-modal baseline (Rasiwasia et al., ACM Multimedia 2010)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.data.corpus import Corpus, Stage
from itmbench.encoders import Embeddings, Encoder, FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.base import Batch, Matcher, Modality


class CCA(Matcher):
    """Regularised canonical correlation analysis of frozen features, solved in closed form as training starts.

    Both sides are projected on the directions that correlate most over the training pairs, and compared by cosine. A
    ``FeatureEncoder`` contributes the features on disk, without its layers; any other encoder is frozen and contributes
    its pooled vectors. Every training image and text is encoded once, as at test. Labels are ignored.

    Args:
        image: the image encoder; by default ready-made features.
        text: the text encoder; by default ready-made features.
        dim: largest size of the common space, which has no more dimensions than the features of either side.
        regularisation: number added to all eigenvalues of a covariance, as a share of their mean.
        power: each dimension is multiplied by its correlation to this power, 4 as in Gong et al., IJCV 2014; 0 gives
            classical CCA.
        **kwargs: arguments of ``Matcher``; those of the optimiser have no effect.

    Raises:
        InputError: ``dim`` is below 1, or ``regularisation`` or ``power`` below 0.
    """

    trains_by_steps = False
    mean_image: Tensor
    mean_text: Tensor
    project_image: nn.Parameter
    project_text: nn.Parameter

    reads_tokens = False

    def __init__(
        self,
        image: Encoder | None = None,
        text: Encoder | None = None,
        dim: int = 128,
        regularisation: float = 0.1,
        power: float = 4.0,
        **kwargs: Any,
    ) -> None:
        if dim < 1 or regularisation < 0 or power < 0:
            raise InputError(
                f"CCA: dim {dim}, regularisation {regularisation}, power {power}; give a dim of at least 1 and "
                "the others at least 0"
            )
        image, text = image or FeatureEncoder(), text or FeatureEncoder()
        for encoder in (image, text):
            if isinstance(encoder, FeatureEncoder):
                encoder.drop_layers()
            encoder.freeze = True
            encoder.freeze_if_asked()
        super().__init__(image, text, **kwargs)
        self.dim, self.regularisation, self.power = dim, regularisation, power
        for name in ("image", "text"):
            self.register_buffer(f"mean_{name}", None)
            # A parameter, not a buffer: these are the method's weights, and distributed training needs parameters.
            self.register_parameter(f"project_{name}", None)

    def adapt(self, corpus: Corpus) -> None:
        """Allocate the projections `[D, K]`, once the width of the features is known."""
        super().adapt(corpus)
        self._allocate(self.image.width, self.text.width, min(self.dim, self.image.width, self.text.width))

    def adapt_to_state(self, state: Mapping[str, Tensor]) -> None:
        image, text = state["project_image"].shape, state["project_text"].shape
        self.image.width, self.text.width = image[0], text[0]
        self._allocate(image[0], text[0], image[1])

    def _allocate(self, image: int, text: int, width: int) -> None:
        if self.project_image is not None:
            return
        for name, size in (("image", image), ("text", text)):
            setattr(self, f"mean_{name}", torch.zeros(size))
            setattr(self, f"project_{name}", nn.Parameter(torch.zeros(size, width)))

    def embed(self, items: Embeddings, modality: Modality) -> Embeddings:
        centred = items.pooled - getattr(self, f"mean_{modality}")
        return Embeddings(normalize(centred @ getattr(self, f"project_{modality}"), dim=-1))

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Solve for the projections, before the first validation and whatever the length of training."""
        moments = self._moments()
        image, text, correlations = canonical_correlations(moments, self.regularisation)
        if not len(correlations):
            raise InputError(
                f"{self.data.corpus.name}: the features of all training images, or of all training texts, are the "
                "same; check how they were extracted"
            )
        scale = correlations[: self.dim] ** self.power
        for name, mean, directions in (("image", moments.x, image), ("text", moments.y, text)):
            getattr(self, f"mean_{name}").copy_(mean / moments.count)
            # If the rank is below the number of dimensions, the last ones stay 0.
            getattr(self, f"project_{name}").zero_()[:, : len(scale)] = directions[:, : self.dim] * scale

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a loss of 0: there is nothing to learn, but trainers count steps and name checkpoints by them."""
        return 0 * (self.project_image.sum() + self.project_text.sum())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return an optimiser with learning rate 0."""
        return torch.optim.SGD([self.project_image, self.project_text], lr=0)

    def _moments(self) -> "Moments":
        """Moments of all training pairs, encoded as at test; every device encodes its share of the images.

        The training loader is unsuitable: it drops the last batch and crops images at random.
        """
        corpus, device = self.data.corpus, self.device
        mine = corpus.train[self.global_rank :: self.trainer.world_size]
        part = replace(
            corpus, text_to_image=corpus.image_trained_with, wrong_pairs=None, stages={"train": Stage(mine, mine)}
        )
        images, texts = self.data.with_corpus(part).eval_dataloaders("train")
        position = torch.zeros(len(corpus.image_ids), dtype=torch.int64)
        position[torch.from_numpy(mine)] = torch.arange(len(mine))
        owner = position[torch.from_numpy(part.text_to_image)].to(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        dx, dy = self.image.width, self.text.width
        text_counts, text_sums = zeros(len(mine)), zeros(len(mine), dy)
        moments = Moments(zeros(1), zeros(dx), zeros(dy), zeros(dx, dx), zeros(dy, dy), zeros(dx, dy))
        for batch in texts:
            batch = self.transfer_batch_to_device(batch, device, 0)
            y, image = self.text(batch["text"]).pooled.double(), owner[batch["index"]]
            text_counts.index_add_(0, image, torch.ones_like(image, dtype=torch.float64))
            text_sums.index_add_(0, image, y)
            moments.y += y.sum(0)
            moments.yy += y.T @ y
        for batch in images:
            batch = self.transfer_batch_to_device(batch, device, 0)
            x, row = self.image(batch["image"]).pooled.double(), position[batch["index"].cpu()].to(device)
            weighted = x * text_counts[row, None]
            moments.x += weighted.sum(0)
            moments.xx += weighted.T @ x
            moments.xy += x.T @ text_sums[row]
        moments.count += text_counts.sum()
        for field in fields(moments):
            total = self.trainer.strategy.reduce(getattr(moments, field.name), reduce_op="sum")
            setattr(moments, field.name, total)
        return moments


@dataclass
class Moments:
    """Number of pairs of vectors x `[Dx]` and y `[Dy]`, and sums of x, y, x x', y y' and x y' over them, float64."""

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor


def canonical_correlations(moments: Moments, regularisation: float) -> tuple[Tensor, Tensor, Tensor]:
    """Find the directions of both sides whose projections correlate most.

    With A and B such that A' Cxx A = 1 and B' Cyy B = 1 for the regularised covariances C, the singular value
    decomposition A' Cxy B = U diag(r) V' gives the directions A U and B V. The regularisation, a share of their
    mean, is added to all eigenvalues of a covariance.

    Returns:
        Directions `[Dx, K]` and `[Dy, K]`, and their correlations `[K]` in descending order. K is the smaller of the
        two ranks, and 0 if one side is constant.
    """
    x, y = moments.x / moments.count, moments.y / moments.count
    cxx, cyy, cxy = (
        products / moments.count - torch.outer(left, right)
        for products, left, right in ((moments.xx, x, x), (moments.yy, y, y), (moments.xy, x, y))
    )
    a, b = whitening(cxx, regularisation), whitening(cyy, regularisation)
    u, correlations, vt = torch.linalg.svd(a.T @ cxy @ b, full_matrices=False)
    return a @ u, b @ vt.T, correlations


def whitening(covariance: Tensor, regularisation: float) -> Tensor:
    """Whitening matrix A `[D, rank]` of C + r mean(eigenvalues of C), C `[D, D]`; without the null space if r is 0."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0)
    # Rounding bound of a zero eigenvalue, as in numpy.linalg.matrix_rank.
    rounding = values.max() * len(values) * torch.finfo(values.dtype).eps
    values = values + regularisation * values.mean()
    kept = values > rounding
    return vectors[:, kept] / values[kept].sqrt()
