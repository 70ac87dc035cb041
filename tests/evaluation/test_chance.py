"""The scores of a random order, against enumeration and against the protocols on random scores."""

from itertools import permutations

import numpy as np
import pytest
import torch
from toy import toy_corpus

from itmbench.encoders import Embeddings
from itmbench.evaluation import chance, protocol_for


@pytest.mark.parametrize("relevant", range(6))
def test_equals_the_mean_over_all_orders(relevant: int) -> None:
    hits: list[bool] = []
    precisions: list[float] = []
    for order in set(permutations([1] * relevant + [0] * (5 - relevant))):
        hits.append(any(order[:2]))
        ranks = np.flatnonzero(order) + 1
        precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)) if len(ranks) else 0.0)
    assert chance.hit_rate(np.array([relevant]), 5, 2) == pytest.approx(np.mean(hits))
    assert chance.average_precision(np.array([relevant]), 5) == pytest.approx(np.mean(precisions))


@pytest.mark.parametrize("labels", [False, True])
def test_random_embeddings_score_what_the_protocol_says(labels: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = toy_corpus(tmp_path_factory.mktemp("toy"), labels)
    images = corpus.stages["test"].images
    generator = torch.Generator().manual_seed(0)
    image, text = (Embeddings(torch.empty(count, 64)) for count in (len(images), len(corpus.texts_of(images))))
    runs = []
    for _ in range(40):
        for table in (image, text):
            table.pooled.normal_(generator=generator)
        runs.append(protocol_for(corpus).evaluate(corpus, "test", image, text).metrics)
    expected = {key: value for key, value in runs[0].items() if key.startswith("chance/")}
    assert set(expected) >= ({"chance/mAP"} if labels else {"chance/rSum", "chance/i2t/R@1", "chance/t2i/R@10"})
    for key, value in expected.items():
        found = [run[key.removeprefix("chance/")] for run in runs]
        assert np.mean(found) == pytest.approx(value, abs=4 * np.std(found) / np.sqrt(len(found)) + 1e-9), key
