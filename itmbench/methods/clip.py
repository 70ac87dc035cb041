"""CLIP (Radford et al., ICML 2021): two transformers, the cosine of their projections, InfoNCE."""

from typing import Any

from itmbench.encoders import (
    CLIPImageEncoder,
    CLIPTextEncoder,
    PretrainedCLIPImageEncoder,
    PretrainedCLIPTextEncoder,
    ScratchCLIPImageEncoder,
    ScratchCLIPTextEncoder,
)
from itmbench.errors import InputError
from itmbench.methods.base import Matcher
from itmbench.methods.losses import InfoNCE, TripletLoss


class CLIP(Matcher):
    """CLIP through transformers: zero-shot or fine-tuned from published weights, or small and trained from scratch.

    Args:
        name: a hub name such as ``openai/clip-vit-base-patch32``, or a local folder, for both towers. Without
            ``name``, ``image`` and ``text``, both towers are small and trained from scratch.
        image: the image tower, if it needs options of its own.
        text: the text tower, if it needs options of its own.
        loss: loss on the in-batch scores; by default InfoNCE at the temperature stored in the weights.
        **kwargs: arguments of ``Matcher``.

    Raises:
        InputError: the towers have no common space, or both a name and a tower are given.
    """

    reads_tokens = False

    def __init__(
        self,
        name: str | None = None,
        image: CLIPImageEncoder | None = None,
        text: CLIPTextEncoder | None = None,
        loss: InfoNCE | TripletLoss | None = None,
        **kwargs: Any,
    ) -> None:
        if name is not None:
            if image is not None or text is not None:
                raise InputError(f"CLIP: name={name} sets both towers; give it, or image and text, not both")
            image, text = PretrainedCLIPImageEncoder(name), PretrainedCLIPTextEncoder(name)
        image, text = image or ScratchCLIPImageEncoder(), text or ScratchCLIPTextEncoder()
        if image.width != text.width:
            raise InputError(
                f"CLIP: the image tower projects to {image.width} dimensions and the text tower to {text.width}; "
                "give both the same dim, or both the same checkpoint"
            )
        super().__init__(image, text, **kwargs)
        self.loss = InfoNCE(image.temperature) if loss is None else loss
