"""Losses against loops written from their equations."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itmbench.methods.losses import InfoNCE, PairLikelihood, TripletLoss, positives


def random_case(seed: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, size, (size,), generator=generator)
    return torch.rand(size, size, generator=generator) * 2 - 1, positives(images)


def test_siblings_and_shared_labels_are_positives() -> None:
    images, labels = torch.tensor([7, 8, 7]), torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.uint8)
    assert positives(images).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    labels[2, 2] = 1
    assert positives(torch.arange(3), labels).tolist() == [
        [True, False, False],
        [False, True, True],
        [False, True, True],
    ]


def test_an_unlabelled_pair_is_still_its_own_positive() -> None:
    assert torch.equal(positives(torch.arange(2), torch.zeros(2, 3)), torch.eye(2, dtype=torch.bool))


def test_infonce_of_pairs_is_cross_entropy() -> None:
    scores = random_case(0, 6)[0]
    expected = torch.nn.functional.cross_entropy(scores / 0.07, torch.arange(6))
    transposed = torch.nn.functional.cross_entropy(scores.T / 0.07, torch.arange(6))
    torch.testing.assert_close(InfoNCE()(scores, torch.eye(6, dtype=torch.bool)), (expected + transposed) / 2)


@pytest.mark.parametrize("learn", [True, False])
def test_temperature_is_learned_only_if_asked(learn: bool) -> None:
    assert [p.requires_grad for p in InfoNCE(learn_temperature=learn).parameters()] == [learn]


def test_a_temperature_at_its_limit_can_still_rise() -> None:
    loss = InfoNCE(temperature=0.005)  # colder than the limit of 0.01
    scores = torch.tensor([[0.1, 0.9], [0.9, 0.1]])  # all wrong: a warmer softmax costs less
    loss(scores, torch.eye(2, dtype=torch.bool)).backward()
    assert loss.log_scale.item() == pytest.approx(math.log(100)) and float(loss.log_scale.grad or 0) > 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0.05, 1.0))
def test_infonce_of_weights_is_cross_entropy_with_normalised_targets(seed: int, size: int, temperature: float) -> None:
    scores = random_case(seed, size)[0]
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(size, size, generator=generator) * 3 - 1).clamp(min=0)  # a third of them 0

    def one_way(scores: Tensor, targets: Tensor) -> float:
        rows = []
        for row, wanted in zip(scores.tolist(), targets.tolist(), strict=True):
            if sum(wanted):
                log_all = math.log(sum(math.exp(score / temperature) for score in row))
                logs = [score / temperature - log_all for score in row]
                rows.append(-sum(w * log for w, log in zip(wanted, logs, strict=True)) / sum(wanted))
        return sum(rows) / len(rows) if rows else 0.0

    expected = (one_way(scores, targets) + one_way(scores.T, targets.T)) / 2
    assert InfoNCE(temperature)(scores, targets).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_infonce_of_weights_without_a_target_costs_nothing() -> None:
    scores = torch.rand(3, 3, requires_grad=True)
    loss = InfoNCE()
    loss(scores, torch.zeros(3, 3)).backward()
    assert scores.grad is not None and not scores.grad.any() and loss.log_scale.grad == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 7), st.floats(0.1, 20))
def test_pair_likelihood_is_that_of_a_bernoulli_variable_for_every_pair(seed: int, size: int, scale: float) -> None:
    scores, own = random_case(seed, size)
    total = 0.0
    for row, mine in zip(scores.tolist(), own.tolist(), strict=True):
        for score, positive in zip(row, mine, strict=True):
            likely = 1 / (1 + math.exp(-scale * score))
            total -= math.log(likely if positive else 1 - likely)
    assert PairLikelihood(scale)(scores, own).item() == pytest.approx(total / size**2, rel=1e-4, abs=1e-5)


def test_pair_likelihood_of_extreme_scores_is_a_number() -> None:
    scores = torch.tensor([[3e4, -3e4], [-3e4, 3e4]], requires_grad=True)
    eye = torch.eye(2, dtype=torch.bool)
    for own, expected in ((eye, 0.0), (~eye, 1.5e4)):
        loss = PairLikelihood()(scores, own)
        assert loss.item() == pytest.approx(expected)
        assert torch.autograd.grad(loss, scores)[0].isfinite().all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 7), st.sampled_from(["hardest", "all"]))
def test_triplet_is_the_hinge_of_the_equations(seed: int, size: int, negatives: str) -> None:
    scores, own = random_case(seed, size)

    def one_way(scores: Tensor, own: Tensor) -> float:
        terms = []
        for row, mine in zip(scores.tolist(), own.tolist(), strict=True):
            wrong = [s for s, positive in zip(row, mine, strict=True) if not positive]
            for s in (s for s, positive in zip(row, mine, strict=True) if positive):
                hinges = [max(0.0, 0.2 + other - s) for other in wrong] or [0.0]
                terms.append(max(hinges) if negatives == "hardest" else sum(hinges) / len(hinges))
        return sum(terms) / len(terms)

    loss = TripletLoss(margin=0.2, negatives=negatives)(scores, own)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(one_way(scores, own) + one_way(scores.T, own.T), rel=1e-5, abs=1e-6)


def test_warm_up_counts_all_negatives_first_and_survives_a_checkpoint() -> None:
    scores, own = random_case(3, 6)
    hardest, every = TripletLoss(), TripletLoss(negatives="all")
    loss = TripletLoss(warmup_steps=2).train()
    values = [loss(scores, own).item() for _ in range(3)]
    assert values == [every(scores, own).item()] * 2 + [hardest(scores, own).item()]
    resumed = TripletLoss(warmup_steps=2)
    resumed.load_state_dict(loss.state_dict())
    assert resumed(scores, own).item() == values[2]


def test_a_batch_without_negatives_costs_nothing() -> None:
    scores = torch.rand(3, 3, requires_grad=True)
    for negatives in ("hardest", "all"):
        loss = TripletLoss(negatives=negatives)(scores, torch.ones(3, 3, dtype=torch.bool))
        loss.backward()
        assert loss.item() == 0 and torch.isfinite(scores.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("negatives", ["hardest", "all"])
def test_a_training_step_of_the_triplet_loss_reads_no_number_back(negatives: Literal["hardest", "all"]) -> None:
    loss = TripletLoss(negatives=negatives, warmup_steps=1).to("meta").train()  # tensors that have no numbers
    scores = torch.empty(6, 6, device="meta", requires_grad=True)
    for _ in range(3):
        loss(scores, torch.empty(6, 6, dtype=torch.bool, device="meta")).backward()
