"""What proves that a method's test numbers hold nothing of the other test items: one function a check.

They know embeddings, scores and evaluations, but no method: whoever runs them says how items are encoded.
"""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isclose, isnan
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from itmbench.data.corpus import Corpus
from itmbench.encoders.base import tensor_digest
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.canaries import Limit
from itmbench.evaluation.protocol import CaptionProtocol, Evaluation, LabelProtocol, Protocol
from itmbench.evaluation.scoring import Scorer

Encode = Callable[[Sequence[int]], Embeddings]
"""(which of a few items, in this order, as one batch) -> their embeddings."""

TOLERANCE = 1e-5
"""Rounding of float32 in another batch or tile: largest difference, relative to the largest number."""


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Args:
        name: of the check.
        found: its figure.
        bound: the largest figure that passes.
        what: what the figure is.
        passed: found <= bound, unless the check says otherwise.
    """

    name: str
    found: float
    bound: float
    what: str
    passed: bool

    @classmethod
    def at_most(cls, bound: float, name: str, found: float, what: str) -> "Finding":
        """A check that passes up to the bound; NaN fails."""
        return cls(name, float(found), float(bound), what, bool(found <= bound))

    def as_dict(self) -> dict[str, Any]:
        """What a result keeps: passed, found and bound."""
        return {"passed": self.passed, "found": self.found, "bound": self.bound}

    def __str__(self) -> str:
        verdict = "pass" if self.passed else "FAIL"
        return f"{self.name:<9} {verdict}   {self.found:<9.3g} at most {self.bound:<9.3g} {self.what}"


def alone(encoders: Mapping[str, Encode], items: Mapping[str, int]) -> Finding:
    """An item's embedding depends on nothing else in its batch.

    A few items are encoded in one batch, then each alone, and in batches of three from the last to the first. Pooled
    vectors and real tokens must agree to 1e-5 of the largest number; which tokens are real must agree at all.

    Args:
        encoders: how to encode the items of each modality.
        items: how many there are of each.
    """
    worst = {}
    for modality, encode in encoders.items():
        together = encode(range(items[modality]))
        backwards = list(reversed(range(len(together))))
        triples = [backwards[start : start + 3] for start in range(0, len(backwards), 3)]
        batches = [*([item] for item in backwards), *triples]
        worst[modality] = _worst(
            _difference(encode(batch), together[torch.tensor(batch)], together) for batch in batches
        )
    found = _worst(worst.values())
    where = " and ".join(modality for modality, figure in worst.items() if figure == found or isnan(figure))
    return Finding.at_most(TOLERANCE, "alone", found, f"relative difference of an embedding ({where}) in other batches")


def pairs(score: Scorer, images: Embeddings, texts: Embeddings) -> Finding:
    """The score of a pair depends on nothing else in its tile.

    All pairs are scored in one tile, then in tiles of 3 x 2 whose items stand in reverse order. Scores must agree to
    1e-5 of the largest.

    Args:
        score: (images, texts) -> scores.
        images: of a few items.
        texts: of a few items.
    """
    whole = score(images, texts)
    found = _worst(
        _relative(score(images[rows.flip(0)], texts[columns.flip(0)]).flip(0, 1), whole[rows][:, columns], whole)
        for rows in torch.arange(len(images)).split(3)
        for columns in torch.arange(len(texts)).split(2)
    )
    return Finding.at_most(TOLERANCE, "pairs", found, "relative difference of a score in another tile")


def at_chance(limits: Sequence[Limit]) -> Finding:
    """A method that knows nothing of an item but its content cannot beat a random order of exchanged contents.

    The figure is the metric that comes nearest to its bound, or exceeds it most.

    Args:
        limits: `itmbench.evaluation.canaries.limits` of evaluations of `itmbench.evaluation.canaries.reassigned`.
    """
    # A recall at K >= N is 1 in any order, and says nothing.
    worst = max((limit for limit in limits if limit.expected < limit.bound), key=Limit.share)
    what = f"{worst.key} of exchanged contents; a random order has {worst.expected:.3g}"
    return Finding.at_most(worst.bound, "random", worst.found, what)


def ties_lose(evaluation: Evaluation, corpus: Corpus, protocol: Protocol) -> Finding:
    """Where all contents are the same, a method finds exactly what the protocol gives to identical embeddings.

    Every metric must equal that (to 1e-9, the rounding of a mean of float64); the figure is the objective.

    Args:
        evaluation: of `itmbench.evaluation.canaries.constant`.
        corpus: that was evaluated.
        protocol: that did; pessimistic, so that recalls are 0.
    """
    images = corpus.stages["test"].images
    same = [Embeddings(torch.ones(len(rows), 2)) for rows in (images, corpus.texts_of(images))]
    expected = protocol.evaluate(corpus, "test", same[0], same[1]).metrics
    wrong = [key for key, value in expected.items() if not isclose(evaluation.metrics[key], value, abs_tol=1e-9)]
    what = f"{protocol.objective} of identical contents" + (
        f"; {len(wrong)} metrics are not those of ties" * bool(wrong)
    )
    return Finding(
        "constant", evaluation.metrics[protocol.objective], expected[protocol.objective], what, passed=not wrong
    )


def frozen(before: Mapping[str, str], after: Mapping[str, str], evaluations: Sequence[Evaluation] = ()) -> Finding:
    """A test pass changes no weight, buffer or extra state, and the next one gives the same answers.

    Args:
        before: `digests` at the start of the first pass.
        after: `digests` at the end of the last.
        evaluations: of each pass.
    """
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    answers = [_answers(evaluation) for evaluation in evaluations]
    differ = sum(int((again != answers[0]).sum()) for again in answers[1:])
    what = f"parts of the state that testing changed{f' ({changed[0]})' if changed else ''}, and answers that differ"
    return Finding.at_most(0, "frozen", len(changed) + differ, what)


def digests(module: nn.Module) -> dict[str, str]:
    """A hash of every parameter, buffer (kept in checkpoints or not) and extra state, by name."""
    return {name: _digest(value) for name, value in {**module.state_dict(), **dict(module.named_buffers())}.items()}


class _WithoutRounding:
    """A protocol that takes embeddings of identical contents for equal where they are so within rounding.

    A library may round the last, smaller batch in another way, and to the ranking that is no tie. What differs from
    the first item by more than 1e-5 of the largest number is left as it is.
    """

    def evaluate(
        self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
    ) -> Evaluation:
        found: Evaluation = super().evaluate(corpus, stage, _snapped(images), _snapped(texts), scorer)  # type: ignore[misc]
        return found


class _Captions(_WithoutRounding, CaptionProtocol): ...


class _Labels(_WithoutRounding, LabelProtocol): ...


def without_rounding(protocol: Protocol) -> Protocol:
    """The protocol, but rounding makes no difference between identical contents."""
    kind = _Captions if isinstance(protocol, CaptionProtocol) else _Labels
    return kind(**asdict(protocol))


def _snapped(items: Embeddings) -> Embeddings:
    first = items[:1]
    same = [_difference(items[row : row + 1], first, first) <= TOLERANCE for row in range(len(items))]
    rows = torch.arange(len(items)).masked_fill(torch.tensor(same), 0)
    return items[rows.to(items.pooled.device)]


def _difference(found: Embeddings, expected: Embeddings, scale: Embeddings) -> float:
    """The largest difference of pooled vectors and real tokens; 1 where other tokens are real."""
    worst = _relative(found.pooled, expected.pooled, scale.pooled)
    if found.tokens is None or expected.tokens is None or scale.tokens is None:
        return worst
    length = max(found.tokens.shape[1], expected.tokens.shape[1])
    found, expected = found.pad(length), expected.pad(length)
    assert found.tokens is not None and expected.tokens is not None
    assert found.mask is not None and expected.mask is not None and scale.mask is not None
    if not torch.equal(found.mask, expected.mask):
        return _worst([worst, 1.0])
    real = found.mask
    return _worst([worst, _relative(found.tokens[real], expected.tokens[real], scale.tokens[scale.mask])])


def _relative(found: Tensor, expected: Tensor, scale: Tensor) -> float:
    if not found.numel():
        return 0.0
    return float((found.float() - expected.float()).abs().max() / scale.float().abs().max().clamp(min=1e-30))


def _worst(figures: Iterable[float]) -> float:
    """The largest; NaN if one is."""
    return float(np.max(list(figures)))


def _answers(evaluation: Evaluation) -> NDArray[np.float64]:
    """Rank or AP of every query, and the metrics."""
    column = "rank" if "rank" in evaluation.per_query else "ap"
    values = [evaluation.metrics[key] for key in sorted(evaluation.metrics)]
    return np.concatenate([evaluation.per_query[column], values])


def _digest(value: Any) -> str:
    if isinstance(value, Tensor):
        return tensor_digest(value)
    return hashlib.blake2b(pickle.dumps(value), digest_size=16).hexdigest()
