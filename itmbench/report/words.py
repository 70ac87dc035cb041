"""A protocol, as a result holds it, in words."""

from typing import Any

TIES = {
    "pessimistic": "Ties lose: a wrong item that scores the same as a right one ranks before it.",
    "optimistic": "Ties win: a wrong item that scores the same as a right one ranks after it, an upper bound.",
}
NORMALISERS = {
    "retrieved": "the relevant items among those K",
    "min": "K, or all relevant items if they are fewer",
    "all": "all relevant items",
    "dcmh": "the first min(K, relevant) relevant items wherever they rank",
}
INDUCTIVE = {
    True: "Every test item was encoded alone (inductive).",
    False: "Test items were encoded together (transductive).",
}
GALLERY = {
    "all": "The gallery holds the training items too, as in most publications.",
    "unseen": "The gallery holds no training item.",
}


def in_words(protocol: dict[str, Any], inductive: bool) -> str:
    """What was ranked, what counts as found, and what the numbers mean.

    Args:
        protocol: as a result holds it.
        inductive: every test item was encoded without the others.
    """
    describe = _caption if protocol["objective"] == "rSum" else _label
    sentences = (*describe(protocol), TIES.get(protocol.get("ties", "")), INDUCTIVE[inductive])
    return " ".join(filter(None, sentences))


def _caption(protocol: dict[str, Any]) -> tuple[str, ...]:
    return (
        "i2t: an image asks for captions among those of all images; its rank is that of its best-ranked own caption.",
        "t2i: a caption asks for its image among all images.",
        "R@K is the share of queries, in percent, with a rank of at most K; rSum is the sum over both directions.",
        "True rSum counts every caption that is true of an image as its own, where the data list them.",
        "Hard neg. is the share of near twins (other images that differ in one fact, which the caption states) that",
        "score below the caption's own image.",
    )


def _label(protocol: dict[str, Any]) -> tuple[str, ...]:
    normaliser = NORMALISERS.get(protocol.get("normaliser", ""), protocol.get("normaliser", ""))
    return (
        "i2t: an image asks for texts. t2i: a text asks for images. Relevant is what shares a label with the query.",
        "mAP is the mean over the queries of the average precision of the whole ranking, and over both directions.",
        f"mAP@K takes the first K and divides by {normaliser}.",
        "P@K is the share of the first K that is relevant, R@K the percentage of the relevant that is among them,",
        "and the gain of NDCG@K is the number of shared labels.",
        GALLERY.get(protocol.get("gallery", ""), ""),
        "A query without any relevant item counts 0.",
    )
