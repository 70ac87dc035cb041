"""Canonical correlation analysis as a cross-modal baseline (Rasiwasia et al., ACM Multimedia 2010)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.data.corpus import Corpus, Rows
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
            getattr(self, f"mean_{name}").copy_(mean / moments.pairs)
            # If the rank is below the number of dimensions, the last ones stay 0.
            getattr(self, f"project_{name}").zero_()[:, : len(scale)] = directions[:, : self.dim] * scale

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return a loss of 0: there is nothing to learn, but trainers count steps and name checkpoints by them."""
        return 0 * (self.project_image.sum() + self.project_text.sum())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return an optimiser with learning rate 0."""
        return torch.optim.SGD([self.project_image, self.project_text], lr=0)

    def _moments(self) -> "Moments":
        """Moments of all training pairs, encoded as at test: the training loader drops pairs and crops at random."""
        corpus = self.data.corpus
        rows: dict[Modality, Rows] = {"image": corpus.train, "text": corpus.texts_of(corpus.train)}
        encoded = self.encode_training(rows, lambda items, _: Embeddings(items.pooled))
        x, y = (encoded[modality].pooled.double() for modality in rows)
        position = np.empty(len(corpus.image_ids), dtype=np.int64)
        position[corpus.train] = np.arange(len(corpus.train))
        owner = torch.from_numpy(position[corpus.image_trained_with[rows["text"]]]).to(y.device)
        counts, sums = owner.bincount(minlength=len(x)).double(), y.new_zeros(len(x), y.shape[1])
        sums.index_add_(0, owner, y)
        weighted = x * counts[:, None]
        return Moments(counts.sum(), weighted.sum(0), y.sum(0), weighted.T @ x, y.T @ y, x.T @ sums)


class Moments(NamedTuple):
    """Number of pairs of vectors x `[Dx]` and y `[Dy]`, and sums of x, y, x x', y y' and x y' over them, float64."""

    pairs: Tensor
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
    x, y = moments.x / moments.pairs, moments.y / moments.pairs
    cxx, cyy, cxy = (
        products / moments.pairs - torch.outer(left, right)
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
