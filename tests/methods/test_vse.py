"""The poolings of VSE++."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.methods.vse import VSE


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pools_real_tokens_only(pooling: Any) -> None:
    torch.manual_seed(0)
    model, items = VSE(dim=8, pooling=pooling, **toy_encoders()), toy_items([4, 1, 2, 0])  # type: ignore[arg-type]
    project = model.project["image"] = nn.Linear(16, 8)
    with torch.no_grad():
        pooled = model.embed(items, "image").pooled
        for row in (0, 1, 2):
            tokens = project(real(items, row))
            expected = tokens.mean(0) if pooling == "mean" else tokens.max(0).values
            assert float(cosine_similarity(pooled[row], expected, dim=0)) == pytest.approx(1, abs=1e-6)
            assert float(pooled[row].norm()) == pytest.approx(1, abs=1e-6)
        assert not pooled[3].any()
