"""How SEDRA's score of a pair comes about: the paths, the words of the local path, and the regions that they find."""

from dataclasses import dataclass

import torch

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.explained import Items, grid_side
from itmbench.methods.losses import log_inverse_temperature
from itmbench.methods.sedra.module import SEDRA


@dataclass(frozen=True)
class ExplainedWord:
    """A word of the local path.

    Args:
        word: as the text encoder spells it, "[mark]" for marks such as [CLS]; the number of a token that is no word.
        share: how much it counts in the text; the shares of a text sum to 1.
        found: how well it finds a region of the image: a smooth maximum of cosines.
        whole: the share of the whole image in what it finds.
        regions: the share of each region `[R]`; with ``whole`` they sum to 1.
    """

    word: str
    share: float
    found: float
    whole: float
    regions: list[float]


@dataclass(frozen=True)
class ExplainedPair:
    """The score of an image and a text.

    Args:
        image: id of the image in the corpus, or its path.
        file: the photograph; None for ready-made features.
        grid: rows and columns of the grid of its regions; None where there is none.
        text_id: id of the text, or the text itself.
        text: its words; None for ready-made features.
        score: as the method ranks by it.
        paths: logit of each path; they sum to the score.
        local_scale: inverse temperature of the local path, whose logit is this times the sum of share x found.
        words: of the local path, in the order of the text; empty without that path.
    """

    image: str
    file: str | None
    grid: int | None
    text_id: str
    text: str | None
    score: float
    paths: dict[str, float]
    local_scale: float
    words: list[ExplainedWord]


@torch.no_grad()
def explain_pairs(model: SEDRA, images: Items, texts: Items) -> list[ExplainedPair]:
    """Explain the score of each image with the text in the same row.

    Raises:
        InputError: the model has no local path.
    """
    if "local" not in model.paths:
        raise InputError(f"explain: this SEDRA has no local path to show (paths: {', '.join(model.paths)})")
    image, read = model.embed(model.image(images.inputs), "image"), model.text(texts.inputs)
    text = model.embed(read, "text")
    explained = []
    for row, file in enumerate(images.files):
        at = slice(row, row + 1)
        paths, scale, words = _pair(
            model, image[at], text[at], None if read.words is None else read.words[row].tolist()
        )
        explained.append(
            ExplainedPair(
                image=images.ids[row],
                file=None if file is None else str(file),
                grid=grid_side(model, len(words[0].regions)) if words else None,
                text_id=texts.ids[row],
                text=texts.texts[row],
                score=sum(paths.values()),
                paths=paths,
                local_scale=scale,
                words=words,
            )
        )
    return explained


def _pair(
    model: SEDRA, image: Embeddings, text: Embeddings, words: list[int] | None
) -> tuple[dict[str, float], float, list[ExplainedWord]]:
    """Logits of the paths, scale of the local one, and its words, of one image and one text."""
    assert text.tokens is not None and text.mask is not None and image.mask is not None
    count = max(1, len(model.vectors))
    parts = zip(image.pooled.float().chunk(count, dim=1), text.pooled.float().chunk(count, dim=1), strict=True)
    paths = {name: float((ours * theirs).sum()) for name, (ours, theirs) in zip(model.vectors, parts, strict=False)}
    scale = float(log_inverse_temperature(model.losses[-1]).exp())
    vectors = text.tokens[0]
    found, regions = model.inter.find(image, vectors)[0], model.inter.regions(image, vectors)[0]
    shares = vectors[:, -1].float()
    paths["local"] = scale * float((found * shares).sum())
    real = image.mask[0, 1:]
    explained = [
        ExplainedWord(
            str(place) if words is None else model.text.word(words[place]) or "[mark]",
            float(shares[place]),
            float(found[place]),
            float(regions[0, place]),
            regions[1:, place][real].tolist(),
        )
        for place in text.mask[0].nonzero().flatten().tolist()
    ]
    return paths, scale, explained
