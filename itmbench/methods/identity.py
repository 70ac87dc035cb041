"""Ready-made embeddings, compared as they are."""

from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler

from itmbench.data.corpus import Corpus
from itmbench.encoders import FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.base import Matcher


class Identity(Matcher):
    """Train nothing: compare given image and text vectors of one space, such as CLIP's, by cosine."""

    def __init__(self, image: FeatureEncoder | None = None, text: FeatureEncoder | None = None, **kwargs: Any) -> None:
        image, text = image or FeatureEncoder(), text or FeatureEncoder()
        for encoder in (image, text):
            encoder.drop_layers()
        super().__init__(image, text, **kwargs)

    def adapt(self, corpus: Corpus) -> None:
        super().adapt(corpus)
        if self.image.width != self.text.width:
            raise InputError(f"Identity: widths {self.image.width} and {self.text.width} are not of one space")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.trainer.max_epochs != 0:
            raise InputError("Identity trains nothing: set trainer.max_epochs to 0")
        return None
