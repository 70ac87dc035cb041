"""The encoder of ready-made features, and embeddings as tables."""

from typing import cast

import numpy as np
import pytest
import torch

from itmbench.data.corpus import Features, Strings
from itmbench.encoders import Embeddings, FeatureEncoder
from itmbench.errors import InputError


def test_masked_tokens_do_not_count() -> None:
    source = Features(np.random.default_rng(0).normal(size=(4, 3, 8)), mask=np.tri(4, 3, dtype=bool))
    encoder = FeatureEncoder(input_dim=8, width=5)
    encoder.fit(source, np.array([0]))
    embeddings = encoder(encoder.processor()([source[row] for row in range(4)], False))
    assert embeddings.tokens is not None and embeddings.tokens.shape == (4, 3, 5)
    expected = encoder.layers(torch.from_numpy(source[1][0][:2])).mean(0)
    torch.testing.assert_close(embeddings.pooled[1], expected)


def test_a_vector_is_one_token_and_hidden_layers_change_it() -> None:
    source = Features(np.eye(3, dtype=np.uint8), rows=np.array([2, 0]))
    torch.manual_seed(0)
    linear, deep = FeatureEncoder(3, width=4), FeatureEncoder(3, width=4, hidden=[6])
    inputs = linear.processor()([source[0], source[1]], False)
    assert inputs["features"].shape == (2, 1, 3)
    assert inputs["features"][0, 0].tolist() == [0, 0, 1]
    layer = cast(torch.nn.Linear, linear.layers[0])
    torch.testing.assert_close(linear(inputs).pooled[0], layer.weight[:, 2] + layer.bias)
    assert not torch.allclose(deep(inputs).pooled, linear(inputs).pooled)


def test_dropout_acts_in_training_only() -> None:
    inputs = {"features": torch.ones(2, 1, 3), "mask": torch.ones(2, 1, dtype=torch.bool)}
    encoder = FeatureEncoder(3, width=4, hidden=[64], dropout=0.5)
    assert not torch.allclose(encoder(inputs).pooled[0], encoder(inputs).pooled[1])
    encoder.eval()
    torch.testing.assert_close(encoder(inputs).pooled[0], encoder(inputs).pooled[1])


def test_wrong_width_and_wrong_kind_are_one_line() -> None:
    with pytest.raises(InputError, match="8 wide; set input_dim"):
        FeatureEncoder(input_dim=7).fit(Features(np.zeros((2, 8))), np.array([0]))
    with pytest.raises(InputError, match="photographs or words"):
        FeatureEncoder(input_dim=7).fit(Strings(["a"]), np.array([0]))


def test_a_width_that_is_not_given_is_that_of_the_data() -> None:
    source = Features(np.random.default_rng(0).normal(size=(4, 3, 8)))
    for hidden in ((), (6,)):
        torch.manual_seed(0)
        given = FeatureEncoder(8, width=5, hidden=hidden)
        found = FeatureEncoder(width=5, hidden=hidden)
        found.fit(source, np.array([0]))
        found.load_state_dict(given.state_dict())
        inputs = found.processor()([source[0]], False)
        torch.testing.assert_close(found(inputs).pooled, given(inputs).pooled)
        weights = {name: value.clone() for name, value in found.state_dict().items()}
        found.fit(source, np.array([0, 1]))  # again, as before a test: what was learned stays
        assert all(torch.equal(value, weights[name]) for name, value in found.state_dict().items())
        with pytest.raises(InputError, match="7 wide; set input_dim to that, not 8, or leave it out"):
            found.fit(Features(np.zeros((2, 7))), np.array([0]))


def test_without_layers_features_are_returned_as_they_are() -> None:
    source = Features(np.random.default_rng(0).normal(size=(4, 3, 8)), mask=np.tri(4, 3, dtype=bool))
    encoder = FeatureEncoder(width=5)
    encoder.drop_layers()
    encoder.fit(source, np.array([0]))
    assert encoder.width == 8 and not list(encoder.parameters())
    pooled = encoder(encoder.processor()([source[1]], False)).pooled
    torch.testing.assert_close(pooled, torch.from_numpy(source[1][0][:2].mean(0, keepdims=True)))


def test_tables_are_padded_to_the_longest_part() -> None:
    parts = [
        Embeddings(torch.ones(2, 4), torch.ones(2, length, 4), torch.ones(2, length, dtype=torch.bool))
        for length in (3, 5)
    ]
    table = Embeddings.cat(parts)
    assert table.tokens is not None and table.mask is not None
    assert table.tokens.shape == (4, 5, 4)
    assert table.mask.sum(1).tolist() == [3, 3, 5, 5]
    assert table.tokens.sum((1, 2)).tolist() == [12, 12, 20, 20]
    assert len(table[1:3]) == 2 and Embeddings.cat([part[:1] for part in [Embeddings(torch.ones(2, 4))]]).tokens is None
