"""P-GNN of GNN4CMR (Qian et al., TPAMI 2023): soft contrast by shared labels, classifiers from the label graph."""

from typing import Any

from torch import Tensor, nn

from itmbench.encoders import Embeddings
from itmbench.encoders.base import Inputs
from itmbench.errors import InputError
from itmbench.losses import SoftInfoNCE
from itmbench.methods.base import Batch, Matcher
from itmbench.methods.distributed import gather_rows
from itmbench.methods.gnn4cmr.graph import LabelClassifiers, label_graph
from itmbench.methods.labels import label_error, training_labels


class GNN4CMR(Matcher):
    """Projections trained by shared labels and by classifiers of a graph of the labels; the data must have labels.

    Args:
        dim: size of the common space.
        layers: graph convolutions over the labels.
        temperature: what cosines are divided by in the contrast.
        intra_weight: factor on the contrast within each modality.
        label_weight: factor on the error of the predicted labels.
        **kwargs: those of ``Matcher``.

    Raises:
        InputError: there is no layer.
    """

    def __init__(
        self,
        dim: int = 256,
        layers: int = 2,
        temperature: float = 0.22,
        intra_weight: float = 0.14,
        label_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if layers < 1:
            raise InputError(f"GNN4CMR: layers {layers} make no graph network; give 1 or more")
        self.dim, self.layers, self.intra_weight, self.label_weight = dim, layers, intra_weight, label_weight
        self.project_image = nn.Linear(self.image.width, dim)
        self.project_text = nn.Linear(self.text.width, dim)
        self.classifiers: LabelClassifiers | None = None  # once the labels are known
        self.contrast = SoftInfoNCE(temperature)

    def setup(self, stage: str) -> None:
        labels = training_labels(self)
        super().setup(stage)
        if self.classifiers is None:
            self.classifiers = LabelClassifiers(label_graph(labels), self.dim, self.layers)

    def encode_image(self, images: Inputs) -> Embeddings:
        return Embeddings(self.project_image(self.image(images).pooled))

    def encode_text(self, tokens: Inputs) -> Embeddings:
        return Embeddings(self.project_text(self.text(tokens).pooled))

    def training_loss(self, batch: Batch) -> Tensor:
        image, text, positives = self.encode_pairs(batch)
        labels = gather_rows(self, batch["labels"])
        across = positives.float()
        within = across.clone().fill_diagonal_(0.0)
        # The contrast is the mean of two directions, which the paper adds up; within a modality they are the same.
        contrast = 2 * self.contrast(self.score(image, text), across) + self.intra_weight * (
            self.contrast(self.score(image, image), within) + self.contrast(self.score(text, text), within)
        )
        assert self.classifiers is not None
        classifiers = Embeddings(self.classifiers())
        wrong = sum(label_error(self.score(items, classifiers), labels) for items in (image, text))
        return contrast + self.label_weight * wrong
