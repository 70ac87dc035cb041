"""A protocol that keeps what goes through it: the same numbers, and nothing that a method could change."""

from dataclasses import replace

import numpy as np
import torch
from evaluation.feature_corpus import feature_corpus, vectors

from itmbench.data.corpus import Corpus
from itmbench.encoders.embeddings import Embeddings
from itmbench.evaluation.canaries import blinded
from itmbench.evaluation.protocol import CaptionProtocol
from itmbench.evaluation.recording import Recording, Sample, changed, keeping

RANDOM = np.random.default_rng(0)
CORPUS = replace(
    feature_corpus(RANDOM.normal(size=(12, 4)), RANDOM.normal(size=(24, 4)), np.arange(24) // 2),
    train=np.empty(0, np.int64),
)
PROTOCOL = CaptionProtocol(ks=(1, 5))


def tables(corpus: Corpus) -> tuple[Embeddings, Embeddings]:
    rows = corpus.stages["test"].images
    return vectors(corpus.images, rows), vectors(corpus.texts, corpus.texts_of(rows))


def test_the_evaluation_is_that_of_the_protocol_and_the_scores_are_those_of_the_sample() -> None:
    recording = Recording(Sample(np.array([1, 7, 3]), np.array([20, 0])), CORPUS, CORPUS)
    protocol = keeping(PROTOCOL, recording)
    assert recording.scores is None and recording.changes(PROTOCOL.evaluate(CORPUS, "test", *tables(CORPUS))) == ["all"]
    assert isinstance(protocol, CaptionProtocol) and protocol.as_dict() == PROTOCOL.as_dict()
    evaluation = protocol.evaluate(CORPUS, "test", *tables(CORPUS))
    assert not changed(PROTOCOL.evaluate(CORPUS, "test", *tables(CORPUS)), evaluation)
    images, texts = (torch.nn.functional.normalize(table.pooled) for table in tables(CORPUS))
    assert recording.scores is not None
    torch.testing.assert_close(recording.scores, (images @ texts.T)[[1, 7, 3]][:, [20, 0]], check_dtype=False)
    assert recording.changes(evaluation) == [] and recording.seconds > 0
    more = replace(evaluation, metrics=evaluation.metrics | {"probe/nouns": 0.5})
    assert recording.changes(more) == []
    more = replace(evaluation, metrics=evaluation.metrics | {"truth/rSum": 600.0})
    assert recording.changes(more) == ["truth/rSum"]
    assert recording.changes(replace(evaluation, metrics=evaluation.metrics | {"rSum": 1.0})) == ["rSum"]
    evaluation.per_query["rank"][0] += 1
    assert recording.changes(evaluation) == ["rank"]


def test_another_protocol_or_another_corpus_is_not_kept() -> None:
    recording = Recording(Sample.of(CORPUS), CORPUS, CORPUS)
    protocol = keeping(PROTOCOL, recording)
    replace(protocol, ties="optimistic").evaluate(CORPUS, "test", *tables(CORPUS))
    protocol.evaluate(replace(CORPUS, name="other"), "test", *tables(CORPUS))
    assert not recording.kept


def test_what_a_method_gives_for_a_blinded_corpus_is_evaluated_by_the_truth() -> None:
    hidden = blinded(CORPUS)
    seen, blind = (
        Recording(Sample.of(CORPUS), CORPUS, CORPUS),
        Recording(Sample.of(CORPUS), hidden.corpus, CORPUS, hidden),
    )
    expected = keeping(PROTOCOL, seen).evaluate(CORPUS, "test", *tables(CORPUS))
    found = keeping(PROTOCOL, blind).evaluate(hidden.corpus, "test", *tables(hidden.corpus))
    assert not changed(expected, found)
    assert seen.scores is not None and blind.scores is not None
    torch.testing.assert_close(blind.scores, seen.scores)
    # Without the places, the ranks are those of random pairs.
    assert changed(expected, PROTOCOL.evaluate(hidden.corpus, "test", *tables(hidden.corpus)))


def test_a_sample_has_at_most_a_hundred_texts() -> None:
    owner = np.arange(260) // 5
    corpus = feature_corpus(RANDOM.normal(size=(52, 2)), RANDOM.normal(size=(260, 2)), owner)
    sample = Sample.of(corpus)
    assert len(sample.images) == 52 and 80 < len(sample.texts) <= 100
