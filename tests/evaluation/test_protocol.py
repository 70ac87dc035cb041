import dataclasses
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation import reference
from evaluation.toy_retrieval import TEST, cosine, lopsided, make_corpus
from torch import Tensor

import itmbench
from itmbench.data.corpus import Corpus, Stage
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import (
    CaptionProtocol,
    LabelProtocol,
    caption_retrieval,
    label_retrieval,
    protocol_for,
    scoring,
)
from itmbench.evaluation.functional import average_precision, best_ranks
from itmbench.evaluation.hash_protocol import HashProtocol


def embed(corpus: Corpus, stage: str = "test", seed: int = 0) -> tuple[Embeddings, Embeddings]:
    """Features in which a text resembles its image a little."""
    generator = torch.Generator().manual_seed(seed)
    rows = corpus.stages[stage].images
    images = torch.randn(len(corpus.image_ids), 6, generator=generator)
    texts = images[corpus.text_to_image] + torch.randn(len(corpus.text_ids), 6, generator=generator)
    return Embeddings(images[rows]), Embeddings(texts[corpus.texts_of(rows)])


def test_captions_are_measured_with_ids() -> None:
    corpus = make_corpus()
    images, texts = embed(corpus)
    found = CaptionProtocol(ks=(1, 5)).evaluate(corpus, "test", images, texts)
    rows = corpus.texts_of(TEST)
    owner = corpus.text_to_image[rows] - 30
    measured = {key: value for key, value in found.metrics.items() if not key.startswith("chance/")}
    assert measured == caption_retrieval(images, texts, owner, ks=(1, 5))
    table = pd.DataFrame(found.per_query)
    i2t, t2i = (table[table.direction == side] for side in ("i2t", "t2i"))
    assert list(i2t["query"]) == [f"i{row}" for row in TEST]
    assert list(t2i["query"]) == [corpus.text_ids[row] for row in rows]
    assert list(i2t["image"]) == list(i2t["query"])
    assert list(t2i["image"]) == [corpus.image_ids[corpus.text_to_image[row]] for row in rows]
    assert list(table["group"]) == list(table["image"])
    relevance = torch.from_numpy(owner) == torch.arange(30)[:, None]
    assert i2t["rank"].tolist() == best_ranks(cosine(images, texts), relevance).tolist()
    assert t2i["rank"].tolist() == best_ranks(cosine(images, texts).T, relevance.T).tolist()


def test_queries_name_the_group_of_their_image() -> None:
    corpus = make_corpus(groups=np.arange(60) // 4, labels=np.ones((60, 1), np.uint8))
    for protocol in (CaptionProtocol(), LabelProtocol()):
        table = protocol.evaluate(corpus, "test", *embed(corpus)).per_query
        image = np.asarray([int(name[1:]) for name in table["image"]])
        here = corpus.stages["test"].images
        first = [here[here // 4 == row // 4][0] for row in image]
        assert list(table["group"]) == [f"i{row}" for row in first]


def with_truth() -> Corpus:
    corpus = make_corpus()
    generator = np.random.default_rng(1)
    truth = [
        np.unique(np.append(generator.choice(60, size=generator.integers(0, 6)), own)) for own in corpus.text_to_image
    ]
    for row in corpus.texts_of(TEST[1:3])[1:]:
        truth[row] = np.empty(0, dtype=np.int64)  # truth is listed of one text of image 31 and of none of image 32
    twins = np.stack([np.arange(20, 60), np.roll(np.arange(20, 60), 7)], axis=1)
    return dataclasses.replace(corpus, true_images=truth, hard_negatives=twins)


@pytest.mark.parametrize("tile", [1 << 15, 100])
@pytest.mark.parametrize("scorer", [None, lopsided])
def test_complete_truth_and_hard_negatives_are_exact(monkeypatch: pytest.MonkeyPatch, tile: int, scorer: Any) -> None:
    monkeypatch.setattr(scoring, "_SCORER_TILE", tile)
    monkeypatch.setitem(scoring._COSINE_TILE, "cpu", tile)
    corpus = with_truth()
    images, texts = embed(corpus)
    evaluation = CaptionProtocol().evaluate(corpus, "test", images, texts, scorer)
    found = evaluation.metrics

    scores = (scorer or cosine)(images, texts)
    rows, truth = corpus.texts_of(TEST), corpus.true_images
    assert truth is not None and corpus.hard_negatives is not None
    owner = corpus.text_to_image[rows] - 30
    listed = torch.tensor([len(truth[row]) > 0 for row in rows])
    true = torch.zeros(30, len(rows), dtype=torch.bool)
    for text, row in enumerate(rows):
        for image in truth[row] if len(truth[row]) else [corpus.text_to_image[row]]:
            if image >= 30:
                true[image - 30, text] = True
    asked = torch.isin(torch.arange(30), torch.from_numpy(owner)[listed])
    i2t, t2i = best_ranks(scores, true)[asked], best_ranks(scores.T, true.T)[listed]
    assert not asked.all() and listed[4] and float(true.sum()) > len(rows)
    for k in (1, 5, 10):
        assert found[f"truth/i2t/R@{k}"] == (i2t <= k).double().mean()
        assert found[f"truth/t2i/R@{k}"] == (t2i <= k).double().mean()
    sides = {"i2t": (scores, true, asked), "t2i": (scores.T, true.T, listed)}
    for name, definition in (("mAP@R", reference.map_at_r), ("R-Precision", reference.r_precision)):
        means = []
        for side, (table, relevant, chosen) in sides.items():
            queries = zip(table[chosen].tolist(), relevant[chosen].tolist(), strict=True)
            means.append(np.mean([definition(row, matches, "pessimistic") for row, matches in queries]))
            assert found[f"truth/{side}/{name}"] == pytest.approx(means[-1], abs=1e-12)
        assert found[f"truth/{name}"] == pytest.approx(np.mean(means), abs=1e-12)
    recalls = [found[f"truth/{side}/R@{k}"] for side in sides for k in (1, 5, 10)]
    assert found["truth/rSum"] == pytest.approx(100 * sum(recalls))
    assert found["truth/rSum"] > found["rSum"]
    outcomes = [
        (
            f"{corpus.text_ids[rows[text]]} {corpus.image_ids[twin]}",
            corpus.image_ids[image],
            1 if bool(scores[image - 30, text] > scores[twin - 30, text]) else 2,
        )
        for image, twin in corpus.hard_negatives
        if image >= 30 and twin >= 30
        for text in np.flatnonzero(owner == image - 30)
        if not true[twin - 30, text]
    ]
    table = pd.DataFrame(evaluation.per_query)
    assert set(
        table[table.direction == "hard"].drop(columns=["direction", "group"]).itertuples(index=False, name=None)
    ) == set(outcomes)
    assert found["hard_negative_accuracy"] == sum(rank == 1 for *_, rank in outcomes) / len(outcomes)


def test_a_collapsed_model_prefers_no_image_to_its_twin() -> None:
    corpus = with_truth()
    texts = corpus.texts_of(TEST)
    same = Embeddings(torch.randn(1, 6).expand(30, -1)), Embeddings(torch.randn(1, 6).expand(len(texts), -1))
    metrics = CaptionProtocol().evaluate(corpus, "test", *same).metrics
    assert metrics["hard_negative_accuracy"] == 0 and metrics["rSum"] == 0
    optimistic = CaptionProtocol(ties="optimistic").evaluate(corpus, "test", *same).metrics
    assert optimistic["rSum"] == 600 and optimistic["hard_negative_accuracy"] == 0


def test_nothing_is_said_of_a_truth_that_is_not_known() -> None:
    corpus = make_corpus(true_images=[np.empty(0, dtype=np.int64)] * 240, hard_negatives=np.array([[1, 2]]))
    metrics = CaptionProtocol().evaluate(corpus, "test", *embed(corpus)).metrics
    assert not [key for key in metrics if "truth" in key or "hard" in key]


def labelled() -> Corpus:
    labels = (np.random.default_rng(2).random((60, 4)) < 0.3).astype(np.uint8)
    labels[50:52] = 0
    queries, gallery = np.arange(45, 60), np.arange(10, 45)
    return make_corpus(labels=labels, label_names=list("abcd"), stages={"test": Stage(queries, gallery)})


@pytest.mark.parametrize("scorer", [None, lopsided])
def test_labels_are_measured_in_both_directions_and_among_unseen_items(scorer: Any) -> None:
    corpus = labelled()
    images, texts = embed(corpus)
    calls = []

    def counted(*tables: Embeddings) -> Tensor:
        calls.append(len(tables[0]) * len(tables[1]))
        return scorer(*tables)

    found = LabelProtocol().evaluate(corpus, "test", images, texts, counted if scorer else None)
    labels, rows = corpus.labels, corpus.texts_of(np.arange(10, 60))
    assert labels is not None
    owner = corpus.text_to_image[rows]
    asked_texts = np.flatnonzero(owner >= 45)
    table = pd.DataFrame(found.per_query)
    for first, prefix in ((10, ""), (30, "unseen/")):  # images 0 to 29 are trained on
        searched_texts = np.flatnonzero((owner >= first) & (owner < 45))
        sides = {
            "i2t": (images[35:], texts[torch.from_numpy(searched_texts)], labels[45:], labels[owner[searched_texts]]),
            "t2i": (
                texts[torch.from_numpy(asked_texts)],
                images[first - 10 : 35],
                labels[owner[asked_texts]],
                labels[first:45],
            ),
        }
        for side, tables in sides.items():
            flip = scorer is not None and side == "t2i"
            turned = (lambda a, b: scorer(b, a).T) if flip else scorer
            expected = label_retrieval(*tables, cutoffs=LabelProtocol().cutoffs, scorer=turned)
            assert found.metrics[f"{prefix}{side}/mAP"] == pytest.approx(expected["mAP"], abs=1e-12)
            if prefix:
                continue
            for key, value in expected.items():
                assert found.metrics[f"{side}/{key}"] == pytest.approx(value, abs=1e-12)
            scores = (turned or cosine)(tables[0], tables[1])
            relevance = torch.from_numpy(tables[2].astype(int) @ tables[3].T.astype(int) > 0)
            ap = table[table.direction == side]["ap"].to_numpy()
            assert ap == pytest.approx(average_precision(scores, relevance).numpy(), abs=1e-12)
        assert found.metrics[f"{prefix}mAP"] == sum(found.metrics[f"{prefix}{side}/mAP"] for side in sides) / 2
    assert list(table["query"][:15]) == list(corpus.image_ids[45:])
    assert list(table["query"][15:]) == [corpus.text_ids[row] for row in rows[asked_texts]]
    assert found.metrics["i2t/queries_without_relevant"] == (labels[45:].sum(axis=1) == 0).sum() > 0
    if scorer:  # both galleries from one scoring
        assert sum(calls) == 15 * np.sum(owner < 45) + len(asked_texts) * 35


def test_a_gallery_of_training_items_says_nothing_of_unseen_ones() -> None:
    corpus = labelled()
    for train, unseen in ((np.arange(45), 0), (np.arange(0), 0), (np.arange(10), 3), (np.arange(30), 3)):
        changed = dataclasses.replace(corpus, train=train)
        metrics = LabelProtocol().evaluate(changed, "test", *embed(changed)).metrics
        assert sum(key.startswith("unseen/") for key in metrics) == unseen
        if len(train) == 10:  # none of them is in the gallery
            assert metrics["unseen/mAP"] == metrics["mAP"]


def test_every_option_changes_the_result() -> None:
    corpus = labelled()
    images, texts = embed(corpus)
    texts.pooled[::2] = texts.pooled[0]
    options = [{}, {"normaliser": "mith"}, {"normaliser": "all"}, {"ties": "optimistic"}]
    results = [LabelProtocol(**o).evaluate(corpus, "test", images, texts).metrics for o in options]  # type: ignore[arg-type]
    assert len({result["i2t/mAP@50"] for result in results}) == 4
    assert "i2t/mAP@7" in LabelProtocol(cutoffs=(7,)).evaluate(corpus, "test", images, texts).metrics


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic"])
@pytest.mark.parametrize("options", [{}, {"shortlist": 10}])
def test_folds_are_the_means_of_separate_evaluations(options: Any, ties: Any) -> None:
    """COCO's 1K figures: five consecutive thousands, each evaluated by itself."""
    corpus = make_corpus(stages={"test": Stage(TEST, TEST), "val": Stage(TEST, TEST)})
    images, texts = embed(corpus)
    protocol = CaptionProtocol((1, 3), ties, folds=5, **options)
    found = protocol.evaluate(corpus, "test", images, texts, lopsided).metrics
    owner = corpus.text_to_image[corpus.texts_of(TEST)] - 30
    apart = []
    for fold in range(5):
        members = np.flatnonzero(owner // 6 == fold)
        part = make_corpus(stages={"test": Stage(TEST[6 * fold : 6 * fold + 6], TEST[6 * fold : 6 * fold + 6])})
        tables = images[6 * fold : 6 * fold + 6], texts[torch.from_numpy(members)]
        apart.append(CaptionProtocol((1, 3), ties, **options).evaluate(part, "test", *tables, lopsided).metrics)
    keys = ["rSum", *(f"{side}/R@{k}" for side in ("i2t", "t2i") for k in (1, 3, 5, 10))]
    assert {key for key in found if key.startswith("folds/")} == {f"folds/{key}" for key in keys}
    for key in keys:
        assert found[f"folds/{key}"] == pytest.approx(np.mean([metrics[key] for metrics in apart]))
    whole = CaptionProtocol((1, 3), ties, **options).evaluate(corpus, "test", images, texts, lopsided).metrics
    assert found.items() >= whole.items() and found["folds/rSum"] > found["rSum"]
    assert protocol.evaluate(corpus, "val", images, texts, lopsided).metrics == whole
    with pytest.raises(InputError, match="31 folds of 30 test images"):
        CaptionProtocol(folds=31).evaluate(corpus, "test", images, texts)
    with pytest.raises(InputError, match="folds: the images 1 to 1 have no text"):
        itmbench.evaluate(np.eye(2), np.eye(2)[:1], [0], protocol=CaptionProtocol(folds=2))


def test_a_shortlist_changes_the_result_of_a_scorer_and_says_what_is_lost() -> None:
    corpus = make_corpus()
    images, texts = embed(corpus)
    short, exact = (
        CaptionProtocol(shortlist=k).evaluate(corpus, "test", images, texts, lopsided).metrics for k in (10, None)
    )
    assert short["rSum"] != exact["rSum"]
    # 30 images and 120 texts: the sample holds all of them.
    for direction in ("i2t", "t2i"):
        for k in (1, 5, 10):
            lost = exact[f"{direction}/R@{k}"] - short[f"{direction}/R@{k}"]
            assert short[f"shortlist/{direction}/lost R@{k}"] == pytest.approx(lost)
    cosines = [CaptionProtocol(shortlist=k).evaluate(corpus, "test", images, texts).metrics for k in (10, None)]
    assert cosines[0] == cosines[1]


def test_a_shortlist_of_labels_changes_the_result_of_a_scorer_and_says_what_is_lost() -> None:
    corpus = labelled()
    images, texts = embed(corpus)
    found = [LabelProtocol(shortlist=k).evaluate(corpus, "test", images, texts, lopsided) for k in (3, 10_000, None)]
    short, whole, exact = (evaluation.metrics for evaluation in found)
    for direction in ("i2t", "t2i"):  # fewer than 200 queries: the sample holds all of them
        lost = exact[f"{direction}/mAP"] - short[f"{direction}/mAP"]
        assert abs(lost) > 0.001 and short[f"shortlist/{direction}/lost mAP"] == pytest.approx(lost)
        assert whole.pop(f"shortlist/{direction}/lost mAP") == 0
    assert whole == exact
    cosines = [LabelProtocol(shortlist=k).evaluate(corpus, "test", images, texts).metrics for k in (3, None)]
    assert cosines[0] == cosines[1]
    assert LabelProtocol(shortlist=3).as_dict() == LabelProtocol().as_dict() | {"shortlist": 3}


def test_a_protocol_is_frozen_named_and_goes_whole_into_a_result() -> None:
    caption, label = CaptionProtocol(), LabelProtocol()
    assert (caption.objective, label.objective) == ("rSum", "mAP")
    assert caption.as_dict() == {
        "name": "caption-retrieval", "version": 2, "objective": "rSum", "ks": [1, 5, 10], "ties": "pessimistic",
        "shortlist": None, "folds": None,
    }  # fmt: skip
    assert label.as_dict() == {
        "name": "label-retrieval", "version": 2, "objective": "mAP", "cutoffs": [1, 5, 10, 50, 100, 500],
        "normaliser": "retrieved", "ties": "pessimistic",
    }  # fmt: skip
    assert json.loads(json.dumps(label.as_dict())) == label.as_dict()
    with pytest.raises(dataclasses.FrozenInstanceError):
        caption.ks = (1,)  # type: ignore[misc]
    corpus = labelled()
    assert protocol_for(corpus) == label and protocol_for(make_corpus()) == caption
    for protocol, on in ((caption, make_corpus()), (label, corpus)):
        assert protocol.objective in protocol.evaluate(on, "test", *embed(on)).metrics


@pytest.mark.parametrize("ks", [(1, 5, 10, 50), (50,), (3, 1)])
def test_rsum_adds_the_same_six_recalls_whatever_else_is_asked_for(ks: tuple[int, ...]) -> None:
    corpus = make_corpus(true_images=[np.array([image]) for image in make_corpus().text_to_image])
    usual = CaptionProtocol().evaluate(corpus, "test", *embed(corpus)).metrics
    found = CaptionProtocol(ks=ks).evaluate(corpus, "test", *embed(corpus)).metrics
    assert found.items() >= usual.items()
    assert found.keys() - usual.keys() == {
        f"{kind}{side}/R@{k}"
        for kind in ("", "truth/", "chance/")
        for side in ("i2t", "t2i")
        for k in {*ks} - {1, 5, 10}
    }
    assert CaptionProtocol(ks=(10, 5, 1)) == CaptionProtocol(ks=(5,)) == CaptionProtocol()


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="'dcmh' is now called 'mith'"):
        LabelProtocol(normaliser="dcmh")  # type: ignore[arg-type]
    for make in (
        lambda: CaptionProtocol(ks=(0,)),
        lambda: CaptionProtocol(ties="x"),  # type: ignore[arg-type]
        lambda: CaptionProtocol(shortlist=9),
        lambda: LabelProtocol(normaliser="x"),  # type: ignore[arg-type]
        lambda: LabelProtocol(shortlist=0),
        lambda: LabelProtocol(shortlist=2.5),  # type: ignore[arg-type]
        lambda: LabelProtocol(shortlist="9"),  # type: ignore[arg-type]
        lambda: HashProtocol(shortlist=9),
        lambda: CaptionProtocol(folds=1),
        lambda: CaptionProtocol(folds=2.5),  # type: ignore[arg-type]
        lambda: CaptionProtocol(ks=(1.5,)),  # type: ignore[arg-type]
        lambda: LabelProtocol(cutoffs=("5",)),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError):
            make()


@pytest.mark.parametrize("protocol", [CaptionProtocol(), LabelProtocol()])
def test_bad_tables_name_what_is_wrong(protocol: CaptionProtocol | LabelProtocol) -> None:
    corpus = labelled()
    images, texts = embed(corpus)
    with pytest.raises(InputError, match="49 image embeddings for 50 images"):
        protocol.evaluate(corpus, "test", images[:-1], texts)
    with pytest.raises(InputError, match="text embeddings for 200 texts"):
        protocol.evaluate(corpus, "test", images, texts[1:])
    with pytest.raises(InputError, match="toy: has no stage 'dev'; choose one of test"):
        protocol.evaluate(corpus, "dev", images, texts)
    texts.pooled[3, 1] = math.nan
    with pytest.raises(
        InputError, match=f"embedding of text {corpus.text_ids[corpus.texts_of(np.arange(10, 60))[3]]}:"
    ):
        protocol.evaluate(corpus, "test", images, texts)


def test_nan_scores_name_the_query_by_its_id() -> None:
    def scorer(images: Embeddings, texts: Embeddings) -> Tensor:
        return cosine(images, texts).masked_fill((images.pooled == bad).all(dim=1)[:, None], math.nan)

    corpus = make_corpus()
    images, texts = embed(corpus)
    bad = images.pooled[12]
    with pytest.raises(InputError, match="scores of image i42: NaN"):
        CaptionProtocol().evaluate(corpus, "test", images, texts, scorer)
    corpus = labelled()
    images, texts = embed(corpus)
    bad = images.pooled[40]
    with pytest.raises(InputError, match="scores of image i50: NaN"):
        LabelProtocol().evaluate(corpus, "test", images, texts, scorer)


def test_labels_are_needed_and_the_gallery_may_not_be_empty() -> None:
    corpus = make_corpus()
    with pytest.raises(InputError, match="toy: has no labels"):
        LabelProtocol().evaluate(corpus, "test", *embed(corpus))
    corpus = labelled()
    corpus = dataclasses.replace(corpus, stages={"test": Stage(corpus.stages["test"].queries, np.arange(0))})
    with pytest.raises(InputError, match="no queries, or an empty gallery"):
        LabelProtocol().evaluate(corpus, "test", *embed(corpus))
