"""The family of all differences: against a plain loop, its invariances, and its level in simulated tables."""

import runpy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from itmbench.evaluation.simultaneous import LEVEL, Comparisons, Method, compare_all, t_of_z, z_of_t

SIMULATION = Path(__file__).parents[2] / "scripts" / "simulate_marks.py"


def method(shares: Any, name: str = "", fixed: bool = False) -> Method:
    """A method of groups of equal size."""
    shares = np.asarray(shares, np.float64)
    return Method(shares, shares - shares.mean(1, keepdims=True), [name or str(shares.sum())] * len(shares), fixed)


def made(seed: int, methods: int = 3, seeds: int = 3, groups: int = 40, spread: float = 0.1) -> list[Method]:
    """Methods on two metrics, with images in common, a true difference of the last, and seeds of some spread."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(groups, 2))
    runs = images + 0.5 * rng.normal(size=(methods, 1, groups, 2)) + 0.3 * rng.normal(size=(methods, seeds, groups, 2))
    runs += spread * rng.normal(size=(methods, seeds, 1, 1))
    runs[-1] += 0.4
    return [method(of / groups, str(place)) for place, of in enumerate(runs)]


def reference(methods: list[Method], draws: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """z of every pair and metric, and adjusted p-values, for methods of equal numbers of seeds: docs/statistics.md."""
    rng = np.random.default_rng(seed)
    n, groups, metrics = methods[0].shares.shape
    count, nu = len(methods), n - 1
    mean = [m.shares.mean(0) for m in methods]
    pairs = list(combinations(range(count), 2))

    squares = {(a, b): ((mean[a] - mean[b]) ** 2).sum(0) for a, b in pairs}
    typical = sum(squares.values()) / len(pairs)

    def floored(own: np.ndarray) -> np.ndarray:
        return np.maximum(own, typical * (own / typical).mean())

    def z(a: int, b: int, k: int, images: float, d: float, variances: list[np.ndarray]) -> float:
        images = groups / (groups - 1) * (squares[a, b][k] - images**2 / groups)
        total, below = images, images**2 / (groups - 1)
        own = [floored(v)[k] for v in variances]
        pooled = sum(own) / count
        of_pooled = sum(own) ** 2 / sum(v**2 / nu for v in own)
        for place in (a, b):
            used = max(own[place], pooled) / n
            total += max(used - interaction[place][k], 0)
            below += used**2 / (nu + (of_pooled - nu) * min(pooled / own[place], 1))
        df = max(total**2 / below, 1)
        t = abs(d) / np.sqrt(total)
        return float(np.sqrt(df * np.log(1 + t**2 / df)) * (8 * df + 1) / (8 * df + 3))

    interaction, deviations = [], []
    for m in methods:
        own = m.shares - m.shares.sum(1, keepdims=True) / groups
        rest = own - own.mean(0)
        interaction.append((rest**2).sum((0, 1)) * groups / (groups - 1) / (n * nu))
        deviations.append(m.shares.sum(1) - m.shares.sum(1).mean(0))
    estimated = [(dev**2).sum(0) / nu for dev in deviations]
    sums = [each.sum(0) for each in mean]
    observed = np.array(
        [
            [z(a, b, k, (sums[a] - sums[b])[k], (sums[a] - sums[b])[k], estimated) for k in range(metrics)]
            for a, b in pairs
        ]
    )
    reached = np.zeros_like(observed)
    own = [floored(each) for each in estimated]
    used = [np.maximum(each, sum(own) / count) for each in own]
    standard = np.concatenate([dev / np.sqrt(each) for dev, each in zip(deviations, estimated, strict=True)])
    standard /= np.sqrt(nu * count)
    for _ in range(draws):
        sign = rng.choice([-1, 1], groups)
        flipped, shift, variances = [sign @ each for each in mean], [], []
        for place in range(count):
            new = rng.normal(size=(n, n * count)) @ standard * np.sqrt(used[place])
            kept = np.sqrt(np.maximum(used[place] / n - interaction[place], 0) / (used[place] / n))
            shift.append(flipped[place] + new.mean(0) * kept)
            variances.append(new.var(0, ddof=1))
        largest = max(
            z(a, b, k, (flipped[a] - flipped[b])[k], (shift[a] - shift[b])[k], variances)
            for a, b in pairs
            for k in range(metrics)
        )
        reached += largest >= observed
    return observed, reached / draws


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_p_values_are_those_of_a_plain_loop(spread: float) -> None:
    methods = made(1, spread=spread)
    _, p = reference(methods, 2_000)
    found = compare_all(methods)
    assert found.p == pytest.approx(p, abs=0.04)
    assert ((found.low > 0) | (found.high < 0)).tolist() == (found.p < LEVEL).tolist()
    assert p.min() < 0.25 < p.max()


def same(one: Comparisons, other: Comparisons) -> bool:
    """Equal up to the resamples."""
    close = [np.allclose(a, b, atol=0.05 * (one.high - one.low).max()) for a, b in zip(one[:3], other[:3], strict=True)]
    standard_error = np.sqrt(2 * one.p * (1 - one.p) / 5_000)
    return all(close) and bool((np.abs(one.p - other.p) < 0.002 + 5 * standard_error).all())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.randoms())
def test_order_of_groups_seeds_and_methods_does_not_matter(seed: int, random: Any) -> None:
    methods = made(seed)
    found = compare_all(methods)
    groups, seeds = random.sample(range(40), 40), random.sample(range(3), 3)
    moved = [m._replace(shares=m.shares[seeds][:, groups], centred=m.centred[seeds][:, groups]) for m in methods]
    assert same(found, compare_all(moved))
    order = [2, 1, 0]  # pairs 01, 02, 12 become 21, 20, 10
    turned = compare_all([methods[place] for place in order])
    back = Comparisons(-turned.difference[::-1], -turned.high[::-1], -turned.low[::-1], turned.p[::-1])
    assert same(found, back)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_an_image_that_all_answer_alike_changes_no_verdict_beyond_resampling(seed: int) -> None:
    methods = made(seed)
    found = compare_all(methods)
    constant = np.full((3, 1, 2), 1 / 40)
    more = [method(np.concatenate([m.shares, constant], 1), m.runs[0]) for m in methods]
    changed = compare_all(more).p < LEVEL
    assert not (changed != (found.p < LEVEL))[np.abs(found.p - LEVEL) > 0.015].any()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_identical_methods_are_never_distinguishable(seed: int, fixed: bool, paired: bool) -> None:
    one, _, third = made(seed)
    runs = one.runs if paired else ["twin"] * 3
    found = compare_all([one._replace(fixed=fixed), one._replace(runs=runs, fixed=fixed), third])
    assert (found.difference[0] == 0).all() and (found.p[0] == 1).all()
    assert np.isfinite(found.p).all()


def test_with_many_images_seeds_alone_decide_as_in_a_t_test() -> None:
    """Two methods of five seeds whose images hardly vary: the pooled variance is that of Student's t test."""
    rng = np.random.default_rng(3)
    effects = rng.normal(size=(2, 5)) + np.array([[0], [1.5]])
    shares = (effects[:, :, None, None] + 1e-3 * rng.normal(size=(2, 5, 60, 1))) / 60
    found = compare_all([method(of, name) for of, name in zip(shares, "ab", strict=True)])
    assert found.p.item() == pytest.approx(stats.ttest_ind(*effects).pvalue, abs=0.03)
    assert found.p.item() < 0.2


def test_seeds_of_one_training_are_paired() -> None:
    """Two ways to score the same trained models: what a seed adds to both cancels."""
    rng = np.random.default_rng(0)
    one, _, third = made(0, spread=0.5)
    shift = 0.15 + 0.05 * rng.normal(size=(1, 40, 2))
    variant = one.shares + shift / 40
    paired = compare_all([one, method(variant, one.runs[0]), third])
    apart = compare_all([one, method(variant, "apart"), third])
    assert (paired.p[0] < LEVEL).all() and (apart.p[0] > 0.2).all()
    assert np.allclose(paired.difference, apart.difference)
    by_seed = variant + np.array([-0.5, 0.1, 0.7])[:, None, None] / 40
    assert (compare_all([one, method(by_seed, one.runs[0]), third]).p[0] > 0.1).all()


def test_variants_that_agree_by_chance_over_few_seeds_do_not_profit() -> None:
    """Two variants differ alike in all seeds; a third one shows how far seeds move variants of this training."""
    one, _, _ = made(0, spread=0.5)
    shift = 0.15 + 0.05 * np.random.default_rng(0).normal(size=(1, 40, 2))
    other = method(one.shares + shift / 40, one.runs[0])
    third = method(one.shares + np.array([-0.5, 0.1, 0.4])[:, None, None] / 40, one.runs[0])
    assert (compare_all([one, other]).p[0] < LEVEL).all()
    assert (compare_all([one, other, third]).p[0] > 0.1).all()


def test_a_metric_on_which_seeds_agree_by_chance_borrows_from_the_others() -> None:
    rng = np.random.default_rng(0)
    shares = rng.normal(size=(2, 1, 200, 3)) + np.array([0, 0.5])[:, None, None, None]
    shares = shares + np.array([[-1.0, 0.0, 1.0], [-0.8, -0.1, 0.9]])[:, :, None, None] * np.array([0, 1, 1])
    methods = [method(of / 200, name) for of, name in zip(shares, "ab", strict=True)]
    alone = [m._replace(shares=m.shares[..., :1], centred=m.centred[..., :1]) for m in methods]
    assert compare_all(alone).p[0, 0] < 0.01 < 0.3 < compare_all(methods).p[0, 0]


def test_a_metric_that_is_equal_in_all_seeds_but_for_rounding_changes_no_other() -> None:
    p = []
    for rounded in (True, False):
        methods = made(1, spread=0.5)
        for m in methods:
            m.shares[..., 0] = m.shares[:1, :, 0]
            if not rounded:
                m.shares[..., 0] = np.round(m.shares[..., 0] * 1024) / 1024  # sums are exact
        p.append(compare_all(methods).p[:, 1])
    assert p[0] == pytest.approx(p[1], abs=0.03)


def test_what_a_run_does_on_single_images_counts_once() -> None:
    """Ten seeds without variance of their own: their means vary only as the images of their runs do."""
    noise = np.random.default_rng(0).normal(size=(2, 10, 400, 1)) / 400
    methods = [method(of, name) for of, name in zip(noise, "ab", strict=True)]
    seeds, images = compare_all(methods), compare_all([each._replace(fixed=True) for each in methods])
    assert 0.9 < (seeds.high - seeds.low).item() / (images.high - images.low).item() < 1.2  # counted twice: 1.4


def test_a_fixed_method_has_no_seed_variance() -> None:
    one, _, third = made(0, spread=0.5)
    narrow = compare_all([one._replace(fixed=True), third._replace(fixed=True)])
    wide = compare_all([one, third])
    assert (narrow.high - narrow.low < 0.7 * (wide.high - wide.low)).all()
    single = method(one.shares[:1], fixed=True)
    assert np.isfinite(compare_all([single, third]).p).all()


@pytest.mark.filterwarnings("error")
def test_a_metric_that_no_two_methods_share_changes_nothing_else() -> None:
    methods = made(3)
    lacking = [
        method(np.concatenate([m.shares, np.where(place, np.nan, m.shares[..., :1])], -1), m.runs[0])
        for place, m in enumerate(methods)
    ]
    with_it, without = compare_all(lacking), compare_all(methods)
    assert np.isnan(with_it.p[:, 2]).all() and np.isnan(with_it.difference[:, 2]).all()
    assert with_it.p[:, :2] == pytest.approx(without.p, abs=0.02)


def test_more_comparisons_widen_every_interval() -> None:
    methods = made(2, methods=8)
    two, eight = compare_all(methods[:2]), compare_all(methods)
    assert (eight.high[0] - eight.low[0] > 1.2 * (two.high[0] - two.low[0])).all()
    copied = [method(np.concatenate([m.shares, m.shares], -1), m.runs[0]) for m in methods]
    assert compare_all(copied).p[:, :2] == pytest.approx(eight.p, abs=0.02)  # a redundant metric costs nothing


def test_normal_quantiles_of_t() -> None:
    df = np.array([[2.0], [4.0], [10.0], [300.0]])
    t = np.asarray(stats.t.ppf([0.9, 0.975, 0.9995], df))
    error = np.abs(z_of_t(t, df) - stats.norm.ppf([0.9, 0.975, 0.9995])).max(1)
    assert (error < [0.15, 0.05, 0.01, 1e-4]).all()
    assert t_of_z(1.96, df) == pytest.approx(stats.t.ppf(stats.norm.cdf(1.96), df), rel=0.07)
    assert t_of_z(float(z_of_t(t, df)[1, 2]), df[1]) == pytest.approx(t[1, 2])


SIMULATED = runpy.run_path(str(SIMULATION))
UNEVEN = {"seeds": [3, 10, 10], "ratios": [8, 0.25, 0.25]}


@pytest.mark.parametrize(
    ("methods", "kind"),
    [
        (7, {"seeds": [3] * 7, "ratios": [0] * 7}),
        (7, {"seeds": [3] * 7, "ratios": [2] * 7}),
        (3, UNEVEN),
        (4, {"seeds": [3] * 4, "ratios": [2] * 4, "paired": True}),
    ],
)
def test_equally_good_methods_rarely_lose_a_mark(methods: int, kind: dict[str, Any]) -> None:
    """60 tables of equal methods; 5 % of them are 3. docs/statistics.md has more."""
    lost, _ = SIMULATED["simulate"](SIMULATED["Kind"]("all equal", [0] * methods, **kind), 60)
    assert lost <= 0.12  # by chance in 1 of 100 if the level is 5 %


def test_a_clearly_worse_method_loses_its_mark() -> None:
    lost, found = SIMULATED["simulate"](SIMULATED["Kind"]("2 equal", [0, 0, -80], [3] * 3, [1] * 3), 10)
    assert lost <= 0.2 and found >= 0.7
