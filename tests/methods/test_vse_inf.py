"""The generalised pooling operator and the dropout of tokens."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.encoders import Embeddings
from itmbench.errors import InputError
from itmbench.methods.vse_inf import GeneralizedPooling, VSEInfinity, drop_tokens, rank_codes


def operator() -> GeneralizedPooling:
    torch.manual_seed(0)
    return GeneralizedPooling(size=8)


def slow_pool(pool: GeneralizedPooling, tokens: Tensor) -> Tensor:
    """One item alone, one place of the order and one dimension after another."""
    states = pool.gru(rank_codes(len(tokens), pool.size, tokens.device).unsqueeze(0))[0][0]
    logits = torch.stack([pool.read((s[: pool.size] + s[pool.size :]) / 2)[0] / pool.temperature for s in states])
    theta = logits.exp() / logits.exp().sum()
    pooled = torch.zeros(tokens.shape[1])
    for dimension in range(tokens.shape[1]):
        for place, value in enumerate(sorted(tokens[:, dimension].tolist(), reverse=True)):
            pooled[dimension] += theta[place] * value
    return pooled


def test_pooling_is_that_of_a_slow_loop_over_items_alone() -> None:
    pool, items = operator(), toy_items([5, 1, 3, 5, 7, 0], seed=4)
    assert items.tokens is not None and items.mask is not None
    with torch.no_grad():
        pooled = pool(items.tokens, items.mask)
        for row in range(5):
            torch.testing.assert_close(pooled[row], slow_pool(pool, real(items, row)), rtol=0, atol=1e-6)
        assert not pooled[5].any()


def test_the_order_of_tokens_and_their_place_in_the_mask_do_not_matter() -> None:
    pool, items = operator(), toy_items([4], seed=4)
    assert items.tokens is not None and items.mask is not None
    scattered = torch.full((1, 7, 16), 9.0)
    mask = torch.tensor([[False, True, True, False, True, False, True]])
    scattered[mask] = items.tokens[0].flip(0)
    with torch.no_grad():
        torch.testing.assert_close(pool(scattered, mask), pool(items.tokens, items.mask))


def test_rank_codes_start_at_one() -> None:
    codes = rank_codes(3, 4, torch.device("cpu"))
    expected = [[f(k / 10_000**e) for e in (0, 0.5) for f in (torch.sin, torch.cos)] for k in torch.arange(1.0, 4.0)]
    torch.testing.assert_close(codes, torch.tensor(expected))


def test_a_share_of_the_tokens_is_left_out_and_one_stays() -> None:
    torch.manual_seed(0)
    mask = torch.arange(50).unsqueeze(0) < torch.randint(1, 51, (400, 1))
    kept = drop_tokens(mask, 0.2)
    assert not (kept & ~mask).any()
    assert float(kept.sum() / mask.sum()) == pytest.approx(0.8, abs=0.02)
    assert drop_tokens(mask, 0.99).sum(1).min() == 1
    assert torch.equal(drop_tokens(mask, 0.0), mask)
    assert not drop_tokens(torch.zeros(2, 3, dtype=torch.bool), 0.5).any()


def test_tokens_are_left_out_in_training_only() -> None:
    torch.manual_seed(0)
    pixels = {"pixels": torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)}

    def twice(model: VSEInfinity) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return model.encode_image(pixels).pooled, model.encode_image(pixels).pooled

    model = VSEInfinity(dim=16, token_dropout=0.5, **toy_encoders())  # type: ignore[arg-type]
    first, second = twice(model.train())
    assert not torch.allclose(first, second)
    torch.testing.assert_close(*twice(model.eval()))
    torch.testing.assert_close(*twice(VSEInfinity(dim=16, token_dropout=0.0, **toy_encoders()).train()))  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_a_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(InputError, match="from 0 to below 1"):
        VSEInfinity(token_dropout=dropout, **toy_encoders())  # type: ignore[arg-type]


def test_a_residual_perceptron_adds_to_the_projection_of_image_tokens_only() -> None:
    torch.manual_seed(0)
    model = VSEInfinity(dim=16, residual_mlp=True, **toy_encoders()).eval()  # type: ignore[arg-type]
    assert isinstance(model.residual, nn.Sequential)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    items = Embeddings(torch.randn(2, 32), torch.randn(2, 5, 32), mask)
    assert items.tokens is not None and items.mask is not None
    first, second = (layer for layer in model.residual if isinstance(layer, nn.Linear))
    hidden = (items.tokens @ first.weight.T + first.bias).clamp(min=0)
    tokens = model.project["image"](items.tokens) + hidden @ second.weight.T + second.bias
    with torch.no_grad():
        expected = normalize(model.pool["image"](tokens, items.mask), dim=1)
        torch.testing.assert_close(model.embed(items, "image").pooled, expected)
        text = normalize(model.pool["text"](model.project["text"](items.tokens), items.mask), dim=1)
        torch.testing.assert_close(model.embed(items, "text").pooled, text)
