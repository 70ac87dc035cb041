"""A protocol, as a result holds it, in words."""

from typing import Any

MARK = "†"
"""Behind the name of a method that failed the leak audit."""
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
AUDIT = {
    "alone": "an item's embedding depends on the others of its batch",
    "pairs": "a pair's score depends on the others of its tile",
    "frozen": "testing changes the model",
}
"""What it means that a check of the leak audit failed; the checks that every run goes through."""
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


def audit_in_words(failed: dict[str, list[str]]) -> str:
    """Which methods failed the leak audit, and what that means; empty if none did.

    Args:
        failed: method -> names of the checks.
    """
    if not failed:
        return ""
    methods = (f"{method} ({', '.join(AUDIT.get(name, name) for name in names)})" for method, names in failed.items())
    return f"{MARK} failed the leak audit, so its numbers may hold knowledge of other test items: {'; '.join(methods)}."


def mixed_in_words(methods: list[str]) -> str:
    """Which methods have rows that are no mean over seeds; empty if none has.

    Args:
        methods: whose seeds differ in more than the seed.
    """
    if not methods:
        return ""
    return (
        f"Not ranked, since not all seeds were run with the same options, data and code: {', '.join(methods)}; run the "
        "benchmark again, or remove the older cells with `itmbench results rm`."
    )


def _caption(protocol: dict[str, Any]) -> tuple[str, ...]:
    return (
        "i2t: an image asks for captions among those of all images; its rank is that of its best-ranked own caption.",
        "t2i: a caption asks for its image among all images.",
        "R@K is the share of queries, in percent, with a rank of at most K; rSum is the sum over both directions.",
        "True rSum counts every caption that is true of an image as its own, where the data list them.",
        "Hard neg. is the share of near twins (other images that differ in one fact, which the caption states) that",
        "score below the caption's own image.",
        "The probes are shares of images that score strictly higher with a caption of theirs than with that caption",
        "after its words were shuffled (order), or two nouns or attributes exchanged; guessing gives a half.",
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
