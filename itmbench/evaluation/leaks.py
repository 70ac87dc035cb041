"""Checks that a method's test results use no information from other test items, one function each.

They work on embeddings, scores and evaluations and know no method; the caller supplies the encoders.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isclose
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from itmbench.data.corpus import Corpus
from itmbench.encoders.base import tensor_digest
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.canaries import Limit
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.protocol import Protocol
from itmbench.evaluation.scoring import Scorer
from itmbench.files import digest

Encode = Callable[[Sequence[int]], Embeddings]
"""(rows of some items, as one batch in this order) -> their embeddings."""

TOLERANCE = 1e-5
"""Tolerance for float32 rounding in another batch or tile, relative to the largest number."""
AMPLIFIED = 1e-3
"""Tolerance for float32 rounding that a network amplifies: attention with a temperature of 0.1 over the edges of a
neighbourhood graph turned 1e-7 into 2e-4."""
PASSES = {torch.float32: 1e-4, torch.float16: 4 * 2**-10, torch.bfloat16: 4 * 2**-7}
"""Tolerance for rounding between scores of two test passes, relative to their spread: 4 times that of a half type."""


@dataclass(frozen=True)
class Finding:
    """Result of a check."""

    name: str
    found: float
    bound: float  # largest value that passes
    what: str  # description of the value
    passed: bool  # found <= bound, unless the check defines it otherwise

    @classmethod
    def at_most(cls, bound: float, name: str, found: float, what: str) -> "Finding":
        """A check that passes if found <= bound; NaN fails."""
        return cls(name, float(found), float(bound), what, bool(found <= bound))

    def as_dict(self) -> dict[str, Any]:
        """The fields that a result stores: passed, found and bound."""
        return {"passed": self.passed, "found": self.found, "bound": self.bound}

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        return f"{self.name:<9} {verdict}   {self.found:<9.3g} at most {self.bound:<9.3g} {self.what}"


def alone(encoders: Mapping[str, Encode], items: Mapping[str, int]) -> Finding:
    """Check that an item's embedding does not depend on the rest of its batch; reports the share of items that differ.

    Encode the items in one batch, then each alone, then in batches of three in reverse order. Pooled vectors and real
    tokens must agree to 1e-3 of the largest number; masks must agree exactly. Both arguments are given
    per modality.
    """
    shares, largest = {}, {}
    for modality, encode in encoders.items():
        together = encode(range(items[modality]))
        backwards = list(reversed(range(len(together))))
        triples = [backwards[start : start + 3] for start in range(0, len(backwards), 3)]
        differences = np.zeros(len(together))
        for batch in [*([item] for item in backwards), *triples]:
            encoded = encode(batch)
            for place, item in enumerate(batch):
                one, other = encoded[place : place + 1], together[item : item + 1]
                differences[item] = np.maximum(differences[item], _difference(one, other, together))
        shares[modality] = float((~(differences <= AMPLIFIED)).mean())
        largest[modality] = float(differences.max())
    where = " and ".join(modality for modality, share in shares.items() if share) or "either modality"
    what = f"share of items whose embedding depends on its batch ({where}), at most by {_worst(largest.values()):.1g}"
    return Finding.at_most(0, "alone", max(shares.values()), what)


def pairs(score: Scorer, images: Embeddings, texts: Embeddings) -> Finding:
    """Check that the score of a pair does not depend on the rest of its tile.

    Score all pairs in one tile, then in tiles of 3 x 2 with the items in reverse order. Scores must agree to 1e-5 of
    their spread.
    """
    whole = score(images, texts)
    found = _worst(
        _largest(score(images[rows.flip(0)], texts[columns.flip(0)]).flip(0, 1), whole[rows][:, columns])
        / _spread(whole)
        for rows in torch.arange(len(images)).split(3)
        for columns in torch.arange(len(texts)).split(2)
    )
    return Finding.at_most(TOLERANCE, "pairs", found, "relative difference of a score between tiles")


def at_chance(limits: Sequence[Limit]) -> Finding:
    """Check that permuted contents score no better than a random order.

    Reports the metric that comes nearest to its bound, or exceeds it most. The limits are those of
    `itmbench.evaluation.canaries.limits`, for corpora of `itmbench.evaluation.canaries.reassigned`.
    """
    # A recall at K >= N is 1 in any order.
    worst = max((limit for limit in limits if limit.expected < limit.bound), key=Limit.share)
    what = f"{worst.key} of permuted contents; random chance is {worst.expected:.3g}"
    return Finding.at_most(worst.bound, "random", worst.found, what)


def ties_lose(evaluation: Evaluation, corpus: Corpus, protocol: Protocol) -> Finding:
    """Check that identical contents score exactly what the protocol gives to identical embeddings.

    Every metric must agree to 1e-9, the rounding of a float64 mean. Reports the objective. The corpus is that of
    `itmbench.evaluation.canaries.constant`; the protocol is pessimistic, so that recalls are 0.
    """
    images = corpus.stages["test"].images
    same = [Embeddings(torch.ones(len(rows), 2)) for rows in (images, corpus.texts_of(images))]
    expected = protocol.evaluate(corpus, "test", same[0], same[1]).metrics
    wrong = [key for key, value in expected.items() if not isclose(evaluation.metrics[key], value, abs_tol=1e-9)]
    what = f"{protocol.objective} of identical contents" + f"; {len(wrong)} metrics differ from ties" * bool(wrong)
    return Finding(
        "constant", evaluation.metrics[protocol.objective], expected[protocol.objective], what, passed=not wrong
    )


def as_reported(changes: Sequence[str]) -> Finding:
    """Check that a method reports what its protocol found; ``changes`` are the metrics that it does not report so."""
    what = f"metrics that are not the protocol's{f' ({changes[0]})' if changes else ''}"
    return Finding.at_most(0, "protocol", len(changes), what)


def same_scores(name: str, expected: Tensor | None, found: Tensor | None, dtype: torch.dtype, what: str) -> Finding:
    """Check that two test passes give some pairs the same scores `[n, m]`; reports the share that differ.

    Args:
        name: name of the check.
        expected: scores of the one pass; None if it ended in an error or without the protocol, and the check fails.
        found: scores of the other pass.
        dtype: the least precise type that they were computed in.
        what: when scores differ.
    """
    share, largest = 1.0, ""
    if expected is not None and found is not None:
        far = (found - expected).abs() / _spread(expected)
        share, largest = float((~(far <= PASSES[dtype])).float().mean()), f", at most by {float(far.max()):.1g}"
    return Finding.at_most(0, name, share, f"share of scores that differ {what}{largest}")


def same_ranks(expected: Tensor | None, found: Tensor | None, dtype: torch.dtype, what: str = "") -> Finding:
    """Check that items encoded alone by a fresh instance rank as in the test; reports the share of queries that differ.

    Args:
        expected: scores `[n, m]` of the test; None as in ``same_scores``.
        found: scores of the fresh instance.
        dtype: as in ``same_scores``. An order of two items counts only where rounding cannot have turned it.
        what: follows the description.
    """
    share = 1.0
    if expected is not None and found is not None:
        gap = 2 * PASSES[dtype] * _spread(expected)
        turned = [
            ((one[:, :, None] - one[:, None] > gap) & ~(other[:, :, None] > other[:, None])).flatten(1).any(1)
            for one, other in ((expected, found), (expected.T, found.T))
        ]
        share = float(torch.cat(turned).float().mean())
    return Finding.at_most(0, "replay", share, f"share of queries that a fresh instance ranks in another way{what}")


def same_fit(one: Mapping[str, str], other: Mapping[str, str]) -> Finding:
    """Check that two trainings on different test items, by `digests`, leave the same state."""
    changed = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    what = f"state tensors that depend on items outside training and validation{f' ({changed[0]})' if changed else ''}"
    return Finding.at_most(0, "blind fit", len(changed), what)


def frozen(before: Mapping[str, str], after: Mapping[str, str], evaluations: Sequence[Evaluation] = ()) -> Finding:
    """Check that testing changes no weight, buffer or extra state (by `digests`), and that repeated tests agree."""
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    results = [_results(evaluation) for evaluation in evaluations]
    different = sum(int((repeated != results[0]).sum()) for repeated in results[1:])
    what = f"state tensors changed by testing{f' ({changed[0]})' if changed else ''}, plus results that differ"
    return Finding.at_most(0, "frozen", len(changed) + different, what)


def digests(module: nn.Module) -> dict[str, str]:
    """Hash every parameter, buffer (persistent or not) and extra state, by name."""
    return {name: _digest(value) for name, value in {**module.state_dict(), **dict(module.named_buffers())}.items()}


def without_rounding(protocol: Protocol) -> Protocol:
    """The same protocol, but embeddings are made equal to the first item's if they agree with it to 1e-5.

    Identical contents may round differently in the last, smaller batch, which would break their ties.
    """

    class WithoutRounding(type(protocol)):  # type: ignore[misc]
        def evaluate(
            self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
        ) -> Evaluation:
            evaluation: Evaluation = super().evaluate(corpus, stage, _snapped(images), _snapped(texts), scorer)
            return evaluation

    made: Protocol = WithoutRounding(**asdict(protocol))
    return made


def _snapped(items: Embeddings) -> Embeddings:
    first = items[:1]
    same = [_difference(items[row : row + 1], first, first) <= TOLERANCE for row in range(len(items))]
    rows = torch.arange(len(items)).masked_fill(torch.tensor(same), 0)
    return items[rows.to(items.pooled.device)]


def _difference(found: Embeddings, expected: Embeddings, scale: Embeddings) -> float:
    """Largest relative difference of pooled vectors and real tokens; 1 if the masks differ."""
    worst = _relative(found.pooled, expected.pooled, scale.pooled)
    if found.tokens is None or expected.tokens is None or scale.tokens is None:
        return worst
    length = max(found.tokens.shape[1], expected.tokens.shape[1])
    found, expected = found.pad(length), expected.pad(length)
    assert found.tokens is not None and expected.tokens is not None
    assert found.mask is not None and expected.mask is not None and scale.mask is not None
    if not torch.equal(found.mask, expected.mask):
        return _worst([worst, 1.0])
    mask = found.mask
    return _worst([worst, _relative(found.tokens[mask], expected.tokens[mask], scale.tokens[scale.mask])])


def _relative(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    return _largest(found, expected) / max(float(scale.float().abs().max()), 1e-30) if found.numel() else 0.0


def _largest(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).abs().max())


def _spread(scores: Tensor) -> float:
    """Largest minus smallest score: a constant added to all changes no ranking and must not hide a difference.

    At least a hundredth of the largest, because scores that are nearly equal differ by rounding.
    """
    return max(float(scores.max() - scores.min()), 0.01 * float(scores.abs().max()), 1e-30)


def _worst(values: Iterable[float]) -> float:
    """The largest value; NaN if any is NaN."""
    return float(np.max(list(values)))


def _results(evaluation: Evaluation) -> NDArray[np.float64]:
    """Rank or AP of every query, followed by the metrics."""
    column = "rank" if "rank" in evaluation.per_query else "ap"
    values = [evaluation.metrics[key] for key in sorted(evaluation.metrics)]
    return np.concatenate([evaluation.per_query[column], values])


def _digest(value: Any) -> str:
    if isinstance(value, Tensor):
        return tensor_digest(value)
    return digest(pickle.dumps(value), size=16)
