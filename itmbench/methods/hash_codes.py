"""Binary codes: the hash head of the methods that train with labels."""

from typing import Any, Literal, get_args

from torch import Tensor, nn
from torch.nn.functional import normalize

from itmbench.data.corpus import Corpus
from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation.hash_protocol import HashProtocol
from itmbench.evaluation.protocol import CaptionProtocol, LabelProtocol
from itmbench.methods.base import Batch, Matcher, Modality
from itmbench.methods.losses import PairLikelihood

Bits = Literal[16, 32, 64, 128]
QUANTISATION = 0.1
"""Weight of the quantisation loss."""


class HashHead(nn.Module):
    """Relaxed codes of vectors: tanh of a linear map (HashNet, Cao et al., ICCV 2017), whose signs are the bits.

    The loss is that of DCMH (Jiang and Li, CVPR 2017, eq. 1): the likelihood that two items share a label, from the
    inner product of their codes, and a quantisation loss, the squared distance of relaxed codes from their signs.
    Unlike there, pairs of one modality count as well, means replace sums, and batch normalisation balances the bits in
    place of a third loss (as in OrthoHash, Hoe et al., NeurIPS 2021).
    """

    def __init__(self, width: int, bits: int) -> None:
        super().__init__()
        self.map = nn.ModuleDict(
            {
                modality: nn.Sequential(nn.Linear(width, bits, bias=False), nn.BatchNorm1d(bits))
                for modality in ("image", "text")
            }
        )
        self.likelihood = PairLikelihood(scale=5 / bits)

    def forward(self, vectors: Tensor, modality: Modality) -> Tensor:
        """Relaxed codes `[B, K]`, from -1 to 1, of vectors `[B, D]`, whose length does not matter."""
        unit = normalize(vectors.float(), dim=1) * vectors.shape[1] ** 0.5
        return self.map[modality](unit).float().tanh()

    def loss(self, image: Tensor, text: Tensor, positives: Tensor) -> Tensor:
        """The loss, a scalar, of vectors `[B, D]` of all devices together, and positives, bool `[B, B]`."""
        codes = self(image, "image"), self(text, "text")
        pairs = ((codes[0], codes[1]), (codes[0], codes[0]), (codes[1], codes[1]))
        likelihood = sum(self.likelihood(one @ other.T, positives) for one, other in pairs)
        return likelihood + QUANTISATION * sum((code - code.detach().sign()).square().mean() for code in codes)


class HashMatcher(Matcher):
    """Base of the methods whose vectors can be turned into binary codes; a subclass sets ``hash_head``.

    Args:
        hash_bits: K, length of the codes; None compares the vectors as they are. With codes, test embeddings are the
            relaxed ones, and are evaluated by the Hamming distance of their signs (`HashProtocol`).
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: another number of bits, or an option that codes leave no room for.
    """

    hash_head: HashHead | None

    def __init__(self, hash_bits: Bits | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hash_bits not in (None, *get_args(Bits)):
            raise InputError(f"{type(self).__name__}: hash_bits is {hash_bits}; give 16, 32, 64 or 128")
        if hash_bits is not None and self.votes is not None:
            raise InputError(f"{type(self).__name__}: codes are made from vectors without votes; remove votes")
        if hash_bits is not None and isinstance(self.protocol, CaptionProtocol):
            raise InputError(f"{type(self).__name__}: hash codes need a label protocol; remove hash_bits or protocol")
        self.hash_bits = hash_bits
        if hash_bits is not None:
            self.protocol = HashProtocol(**vars(self.protocol or LabelProtocol()) | {"bits": hash_bits})

    def make_hash_head(self, width: int) -> HashHead | None:
        """A head for vectors of this width, or None without ``hash_bits``."""
        return None if self.hash_bits is None else HashHead(width, self.hash_bits)

    def adapt(self, corpus: Corpus) -> None:
        if self.hash_bits is not None:
            self.training_labels(corpus)  # fails early on data without labels
        super().adapt(corpus)

    def hash_loss(self, image: Tensor, text: Tensor, positives: Tensor) -> Tensor | float:
        """What codes add to the training loss, of vectors `[B, D]` and positives, bool `[B, B]`."""
        return 0.0 if self.hash_head is None else self.hash_head.loss(image, text, positives)

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        return self.loss(self.score(image, text), positives) + self.hash_loss(image.pooled, text.pooled, positives)

    def at_test(self, items: Embeddings, modality: Modality) -> Embeddings:
        if self.hash_head is None:
            return super().at_test(items, modality)
        return Embeddings(self.hash_head(items.pooled, modality))
