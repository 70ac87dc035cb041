"""What methods share about padding."""

import torch

from itmbench.encoders.base import masked_max, masked_mean, padded


def test_means_and_maxima_are_those_of_the_real_tokens() -> None:
    tokens = torch.randn(3, 4, 5, requires_grad=True)
    mask = torch.tensor([[True, False, True, True], [False, True, False, False], [False] * 4])
    means, maxima = masked_mean(tokens, mask), masked_max(tokens, mask)
    for item in range(2):
        real = tokens[item][mask[item]]
        torch.testing.assert_close(means[item], real.mean(0))
        assert torch.equal(maxima[item], real.amax(0))
    assert not means[2].any() and not maxima[2].any()
    maxima.sum().backward()
    assert tokens.grad is not None and not tokens.grad[~mask].any()
    assert torch.equal(tokens.grad.sum(1), torch.tensor([1.0, 1.0, 0.0])[:, None].expand(3, 5))


def test_only_a_cpu_is_asked_whether_there_is_padding() -> None:
    mask = torch.tensor([[True, True], [True, False]])
    assert padded(mask) and not padded(mask[:1]) and padded(mask[:1].to("meta"))
