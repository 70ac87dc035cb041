"""A protocol, its metrics and the leak audit in words, for legends and notes below tables."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from itmbench.units import duration

MARK = "†"
"""Follows the name of a method that failed the leak audit."""
TIES = {
    "pessimistic": "Ties lose: a wrong item with the score of a right one ranks before it.",
    "optimistic": "Ties win: a wrong item with the score of a right one ranks after it, which gives an upper bound.",
}
NORMALISERS = {
    "retrieved": "the number of relevant items among the first K",
    "min": "min(K, number of relevant items)",
    "all": "the number of relevant items",
    "mith": "min(K, number of relevant items), and counts the first that many relevant items wherever they rank",
}
INDUCTIVE = {
    True: "Every test item was encoded alone (inductive).",
    False: "Test items were encoded together (transductive).",
}
AUDIT = {
    "alone": "an item's embedding depends on the others of its batch",
    "pairs": "a pair's score depends on the others of its tile",
    "frozen": "testing changes the model",
    "protocol": "the reported metrics are not those of the protocol",
    "subset": "scores depend on which other test items exist",
    "blind": "scores depend on rows, file names, pairs or labels of test items",
    "replay": "the checkpoint alone ranks in another way",
}
"""What a failed check of the leak audit means; the checks that every cell goes through."""
CAPTION_NOTES = {
    "R@": "R@K is the percentage of queries with a match of their own among the first K.",
    "rSum": "rSum is the sum of R@1, R@5 and R@10 of both directions (0 to 600).",
    "near-twin": "Near-twin acc. is the percentage of near twins (images that differ in one fact, which the caption "
    "states) that score below the caption's own image; random chance has 50.",
    "(folds)": "Folds are consecutive parts of the test images, searched one by one; the figure is their mean.",
    "(complete truth)": "Complete truth counts every caption that is true of an image as a match.",
    "mAP@R": "Of a query with R true matches, mAP@R adds up the precisions at those among the first R and divides by "
    "R.",
    "R-Precision": "R-Precision is the percentage of true matches among the first R of a query that has R.",
    "probe": "A probe is the percentage of images that score higher with their caption than with the same caption "
    "after its words were shuffled (word order), or two of its nouns or attributes were exchanged; random chance "
    "has 50.",
}
LABEL_NOTES = {
    "mAP": "mAP is the mean average precision of the whole ranking in percent; without a direction, the mean of both.",
    "(unseen)": "The gallery is the dataset's, which in published splits includes the training items; unseen leaves "
    "them out.",
    "mAP@": "mAP@K takes the first K and divides by {normaliser}.",
    " P@": "P@K is the percentage of the first K that is relevant, R@K the percentage of the relevant found there.",
    "NDCG@": "The gain of NDCG@K is the number of shared labels.",
    "at recall": "P at recall r is the best precision at any rank that finds a share of at least r of the relevant.",
}
HASH_NOTES = {key: note for key, note in LABEL_NOTES.items() if key != "NDCG@"} | {
    "ties won": "Ties won: mAP if relevant items came first among equal scores; other ways to break ties lie between.",
    "within Hamming": "P and R within Hamming 2 are those of all items at a distance of at most 2 bits; none counts 0.",
}


def without_mark(label: str) -> str:
    """The name of a method without the mark of a failed audit."""
    return label.removesuffix(f" {MARK}")


def in_words(protocol: dict[str, Any], inductive: bool) -> str:
    """What is ranked, what counts as a match, and what the metrics mean, for a protocol as stored in a result."""
    if protocol["objective"] == "rSum":
        task = "i2t: an image queries all captions. t2i: a caption queries all images."
    else:
        task = (
            "i2t: an image queries texts. t2i: a text queries images. An item is relevant if it shares a label with "
            "the query. A query without relevant items counts 0."
        )
        if "bits" in protocol:
            task += f" Binary codes of {protocol['bits']} bits are ranked by Hamming distance."
    sentences = (task, *notes(protocol), TIES.get(protocol.get("ties", ""), ""), INDUCTIVE[inductive])
    return " ".join(filter(None, sentences))


def notes(protocol: dict[str, Any], headings: Iterable[str] | None = None) -> list[str]:
    """A sentence for a shortlist and for every kind of column with one of these headings; None for all metrics."""
    of_labels = HASH_NOTES if "bits" in protocol else LABEL_NOTES
    metrics = CAPTION_NOTES if protocol["objective"] == "rSum" else of_labels
    normaliser = protocol.get("normaliser", "")
    sentences = {key: note.format(normaliser=NORMALISERS.get(normaliser, normaliser)) for key, note in metrics.items()}
    size = protocol.get("shortlist")
    of_list = (
        f"Where the protocol has a shortlist of {size}, scores by tokens order only the {size} nearest candidates of "
        "each query by cosine."
    )
    first = [of_list] if size else []
    if headings is None:
        return [*first, *sentences.values()]
    shown = list(headings)
    return [*first, *(note for key, note in sentences.items() if any(key in heading for heading in shown))]


def lead_in_words(verdicts: Mapping[str, str], ranked: bool) -> str:
    """How the best method of a table stands against the others, whose verdicts against it are given.

    >>> lead_in_words({"vse": "worse", "scan": "not distinguishable"}, ranked=True)
    'Best on average: better than vse, at 5 %; not distinguishable from scan.'
    >>> lead_in_words({"vse": "worse", "scan": "level"}, ranked=True)
    'Level with scan; better than vse, at 5 %.'
    """
    if not ranked:
        return "No method is ranked."
    if not verdicts:
        return "The only method."
    by_verdict = {verdict: [name for name in verdicts if verdicts[name] == verdict] for verdict in verdicts.values()}
    worse, equal, untested, level = (
        by_verdict.get(name, []) for name in ("worse", "not distinguishable", "untested", "level")
    )
    if len(worse) == len(verdicts):
        return "Better than every other method, at 5 %."
    if len(untested) == len(verdicts):
        return "Best on average; no difference is tested."
    notes = [f"better than {worse[0] if len(worse) == 1 else f'{len(worse)} others'}, at 5 %"] * bool(worse)
    notes += [f"not distinguishable from {', '.join(equal)}"] * bool(equal)
    notes += [f"untested against {', '.join(untested)}"] * bool(untested)
    if level:
        return "; ".join([f"Level with {', '.join(level)}", *notes]) + "."
    return f"Best on average: {'; '.join(notes)}."


def audit_in_words(failed: dict[str, list[str]]) -> str:
    """Which methods failed which checks of the leak audit; empty if none did."""
    if not failed:
        return ""
    methods = (f"{method} ({', '.join(AUDIT.get(name, name) for name in names)})" for method, names in failed.items())
    return f"{MARK} failed the leak audit, so its numbers may use knowledge of other test items: {'; '.join(methods)}."


def budget_in_words(budget: str) -> str:
    """A training budget as stored in a result (JSON; empty in older results).

    >>> budget_in_words('{"batch_size": 32, "max_epochs": 3, "max_steps": -1, "limit_train_batches": 0.5}')
    '3 epochs of batches of 32 pairs, at most 0.5 of them an epoch'
    """
    if budget in ("", "{}"):
        return "nothing trained" if budget else "a training budget that older results do not state"
    limits = json.loads(budget)
    bounds = [f"{limits[f'max_{unit}']:,} {unit}" for unit in ("epochs", "steps") if (limits[f"max_{unit}"] or -1) > 0]
    limit, patience = limits.get("limit_train_batches", 1.0), limits.get("patience")
    part = "" if limit == 1.0 else f", at most {limit} of them an epoch"
    early = "" if patience is None else f", stopped after {patience} validations without progress"
    ended = f", at most {duration(limits['max_seconds'])}" if "max_seconds" in limits else ""
    return f"{' or '.join(bounds) or 'no limit'} of batches of {limits['batch_size']:,} pairs{part}{early}{ended}"


def mixed_in_words(methods: list[str]) -> str:
    """Which methods are not ranked because their seeds differ in more than the seed; empty if none is."""
    if not methods:
        return ""
    return (
        f"Not ranked, because their seeds ran with different options, data or code: {', '.join(methods)}; run the "
        "benchmark again, or remove the older cells with `itmbench results rm`."
    )


def trials_in_words(trials: dict[str, list[int]]) -> str:
    """Which methods had how many trials of tuning, if not the same; ``trials`` lists those of all seeds."""
    if len({number for numbers in trials.values() for number in numbers}) < 2:
        return ""
    had = (f"{method} {' or '.join(map(str, sorted(set(numbers))))}" for method, numbers in trials.items())
    return f"Not tuned equally; trials: {', '.join(had)}."
