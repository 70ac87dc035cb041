"""`itmbench.evaluate` on arrays: against the functions it stands on, plain loops and scipy."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import itmbench
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import CaptionProtocol, Evaluation, LabelProtocol, caption_retrieval, label_retrieval

RNG = np.random.default_rng(0)
OWNER = RNG.permutation(np.repeat(np.arange(80), 3))
IMAGES = RNG.normal(size=(80, 16))
TEXTS = IMAGES[OWNER] + 2 * RNG.normal(size=(240, 16))
LABELS = RNG.random((80, 4)) < 0.3


def changed(**arguments: Any) -> Evaluation:
    return itmbench.evaluate(**{"image_emb": IMAGES, "text_emb": TEXTS, "text_to_image": OWNER, **arguments})


def test_captions_from_arrays_are_those_of_tensors_and_of_caption_retrieval(tmp_path: Path) -> None:
    evaluation = changed()
    expected = caption_retrieval(torch.from_numpy(IMAGES), torch.from_numpy(TEXTS), torch.from_numpy(OWNER))
    assert {key: evaluation.metrics[key] for key in expected} == expected == caption_retrieval(IMAGES, TEXTS, OWNER)
    for kind in ("<f4", ">f4"):
        np.save(tmp_path / "texts.npy", TEXTS.astype(kind))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of arrays that are read-only
            mapped = changed(text_emb=np.load(tmp_path / "texts.npy", mmap_mode="r"), text_to_image=OWNER.astype("u2"))
        assert mapped.metrics == evaluation.metrics
    assert evaluation.metrics == changed(image_emb=IMAGES.tolist()).metrics
    assert changed(protocol=CaptionProtocol(ks=(2,))).metrics["i2t/R@2"] > evaluation.metrics["i2t/R@1"]


def test_a_query_is_named_by_its_row() -> None:
    """The rank of each text, by a loop over its row of cosines."""
    table = changed().per_query
    unit = [of / np.linalg.norm(of, axis=1, keepdims=True) for of in (IMAGES, TEXTS)]
    cosines = unit[1] @ unit[0].T
    ranks = {str(row): 1 + int((of > of[OWNER[row]]).sum()) for row, of in enumerate(cosines)}
    asked = table["direction"] == "t2i"
    assert dict(zip(table["query"][asked], table["rank"][asked], strict=True)) == ranks
    assert list(table["image"][asked]) == [str(OWNER[int(row)]) for row in table["query"][asked]]


def test_a_scorer_replaces_the_cosine() -> None:
    def opposite(images: Embeddings, texts: Embeddings) -> torch.Tensor:
        return -torch.cdist(-images.pooled, texts.pooled)

    assert changed(scorer=opposite).metrics["rSum"] < changed().metrics["rSum"] / 2


def test_labels_are_searched_among_all_items_or_among_the_gallery() -> None:
    text_labels = LABELS[OWNER]
    everything = changed(labels=LABELS).metrics
    assert changed(labels=torch.tensor(LABELS, dtype=torch.float, requires_grad=True)).metrics == everything
    for key, value in label_retrieval(IMAGES, TEXTS, LABELS, text_labels).items():
        assert everything[f"i2t/{key}"] == pytest.approx(value)
    asked = np.arange(60, 80)
    rest, searched = changed(labels=LABELS, queries=asked).metrics, OWNER < 60
    for key, value in label_retrieval(IMAGES[60:], TEXTS[searched], LABELS[60:], text_labels[searched]).items():
        assert rest[f"i2t/{key}"] == pytest.approx(value)
    assert changed(labels=LABELS, queries=asked, gallery=np.arange(60)).metrics == rest
    assert changed(labels=LABELS, queries=asked, gallery=np.arange(30)).metrics != rest
    assert "i2t/mAP@7" in changed(labels=LABELS, protocol=LabelProtocol(cutoffs=(7,))).metrics


def test_intervals_are_those_of_scipy_and_stand_in_the_repr() -> None:
    evaluation = changed()
    table = evaluation.per_query
    hits = table["rank"][table["direction"] == "i2t"] <= 5
    expected = stats.bootstrap((hits,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    low, high = evaluation.interval("i2t/R@5")
    assert (low, high) == pytest.approx(tuple(expected), abs=0.015)
    for text in (repr(evaluation), evaluation._repr_html_()):
        assert f"{low:.3f} to {high:.3f}" in text and f"{evaluation.metrics['rSum']:.1f}" in text
        assert "80 i2t and 240 t2i queries" in text
    with pytest.raises(InputError, match="i2t/MedR: has no interval; choose one of i2t/R@1"):
        evaluation.interval("i2t/MedR")
    with pytest.raises(InputError, match="None: has no interval; choose one of i2t/R@1"):
        evaluation.interval(None)  # type: ignore[arg-type]
    assert changed(protocol=CaptionProtocol(ks=(50,))).interval("rSum") == evaluation.interval("rSum")


def test_comparisons_are_those_of_a_loop_over_resampled_images() -> None:
    better, worse = changed(), changed(text_emb=TEXTS + RNG.normal(size=TEXTS.shape))
    found = better.compare(worse, "t2i/R@10")
    gains = np.zeros((80, 2))
    for evaluation, sign in ((better, 1), (worse, -1)):
        table = evaluation.per_query
        for direction, image, rank in zip(table["direction"], table["image"], table["rank"], strict=True):
            if direction == "t2i":
                gains[int(image)] += [sign * (rank <= 10), 0.5]
    loop = []
    for _ in range(4000):
        drawn = gains[RNG.integers(0, 80, 80)].sum(axis=0)
        loop.append(drawn[0] / drawn[1])
    assert found.difference == pytest.approx(gains[:, 0].sum() / 240)
    assert found[1:3] == pytest.approx(np.percentile(loop, (2.5, 97.5)), abs=0.008)
    flips = [abs((RNG.choice((-1, 1), 80) * gains[:, 0]).sum()) >= abs(gains[:, 0].sum()) for _ in range(4000)]
    assert found.p == pytest.approx(np.mean(flips), abs=0.03)
    assert better.compare(worse).difference == pytest.approx(better.metrics["rSum"] - worse.metrics["rSum"])
    assert better.compare(better).verdict == "not distinguishable"
    with pytest.raises(InputError, match="different queries"):
        better.compare(itmbench.evaluate(IMAGES[1:], TEXTS[OWNER > 0], OWNER[OWNER > 0] - 1))
    for one, other in ((better, changed(labels=LABELS)), (changed(labels=LABELS), worse)):
        with pytest.raises(InputError, match="one evaluation measures captions and the other labels"):
            one.compare(other)
    with pytest.raises(InputError, match="mAP: cannot be compared"):
        better.compare(worse, "mAP")
    optimistic = itmbench.evaluate(IMAGES, TEXTS, OWNER, protocol=CaptionProtocol(ties="optimistic"))
    with pytest.raises(InputError, match="another protocol, gallery or labels"):
        better.compare(optimistic)
    with pytest.raises(InputError, match="give another Evaluation, not dict"):
        better.compare(better.metrics)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_emb": IMAGES[0]}, r"embeddings of shape \[16\]: give a table"),
        ({"image_emb": IMAGES[:, :5]}, "5 and 16 dimensions have no cosine"),
        ({"image_emb": np.where(np.arange(80)[:, None] == 7, np.nan, IMAGES)}, "embedding of image 7: NaN"),
        ({"text_emb": TEXTS * 1j}, "embeddings: values of type complex128"),
        ({"text_emb": torch.from_numpy(TEXTS * 1j)}, "embeddings: complex, sparse or without data; give a dense table"),
        ({"text_emb": torch.from_numpy(TEXTS).to("meta")}, "embeddings: complex, sparse or without data"),
        (
            {"text_emb": torch.from_numpy(TEXTS).to_sparse()},
            "embeddings: complex, sparse or without data; give a dense table",
        ),
        ({"text_emb": np.ma.masked_array(TEXTS, TEXTS > 1)}, "embeddings: masked values"),
        ({"image_emb": IMAGES * 1e-300}, "embedding of image 0: too small for 32 bits"),
        ({"image_emb": IMAGES * 1e-43}, "embedding of image 0: too small for 32 bits"),  # two digits are left
        ({"text_emb": np.full(TEXTS.shape, 2**63, np.uint64)}, r"embeddings: numbers from 2\*\*63 on"),
        ({"labels": torch.from_numpy(1 * LABELS).to_sparse()}, "labels: complex, sparse"),
        ({"scorer": "dot"}, "scorer: 'dot' is not a function of two Embeddings; give one, or None for the cosine"),
        ({"scorer": "dot", "labels": LABELS}, "scorer: 'dot' is not a function"),
        ({"scorer": "dot", "protocol": CaptionProtocol(shortlist=20)}, "scorer: 'dot' is not a function"),
        ({"scorer": lambda images, texts: None}, "scores: values of type object"),
        ({"scorer": lambda images, texts: 1j * (images.pooled @ texts.pooled.T)}, "scores: complex"),
        ({"text_emb": [[1.0, 2.0], [1.0]]}, "embeddings: rows of different lengths"),
        ({"text_emb": TEXTS[1:]}, r"text_to_image has shape \[240\] for 239 texts"),
        ({"text_to_image": OWNER + 1}, "belongs to image 80; there are images 0 to 79"),
        ({"text_to_image": OWNER + 0.5}, r"belongs to image \d+\.5; there are"),
        ({"labels": LABELS[1:]}, r"labels of shape \[79, 4\] for 80 items"),
        ({"labels": np.where(LABELS, np.nan, 0)}, "labels: hold something other than 0 and 1"),
        ({"labels": 2 * LABELS}, "labels: hold something other than 0 and 1"),
        ({"queries": [0, 1]}, "queries and gallery need labels"),
        ({"queries": [0, 1], "labels": LABELS, "protocol": CaptionProtocol()}, "queries and gallery need labels"),
        ({"labels": LABELS, "queries": [80]}, "queries: give a list of image rows, whole numbers from 0 to 79"),
        ({"labels": LABELS, "gallery": LABELS[:, 0]}, "gallery: give a list of image rows"),
        ({"protocol": LabelProtocol()}, "has no labels"),
    ],
)
def test_bad_input_is_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        changed(**arguments)
    assert "\n" not in str(error.value)


def test_what_torch_does_not_compute_with_gives_the_same() -> None:
    arrays = changed(image_emb=IMAGES.astype(np.longdouble), scorer=lambda a, b: (a.pooled @ b.pooled.T).numpy())
    assert arrays.metrics == changed(scorer=lambda a, b: a.pooled @ b.pooled.T).metrics


def test_images_without_texts_are_counted_and_said() -> None:
    vectors = np.eye(4)
    with pytest.warns(UserWarning, match="2 of 4 images have no text, and count as missed"):
        evaluation = itmbench.evaluate(vectors, vectors[:2], [0, 1])
    assert evaluation.metrics["i2t/R@1"] == 0.5
    with pytest.warns(UserWarning, match="1 of 2 images has no text, and counts as missed"):
        itmbench.evaluate(vectors[:2], vectors[:1], [0])


def test_embeddings_of_zeros_only_are_counted_and_said() -> None:
    zeros = np.eye(6) * (np.arange(6) % 3 > 0)[:, None]
    with pytest.warns(UserWarning, match="2 of 6 image embeddings hold zeros only, the first is row 0; ") as warned:
        evaluation = itmbench.evaluate(zeros, np.eye(6), range(6))
    assert len(warned) == 1 and evaluation.metrics["t2i/R@1"] == pytest.approx(4 / 6)
    with pytest.warns(UserWarning, match="2 of 6 text embeddings hold zeros only"):
        assert itmbench.evaluate(np.eye(6), zeros, range(6)).metrics["i2t/R@1"] == pytest.approx(4 / 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a scorer may not read the pooled vectors
        itmbench.evaluate(zeros, np.eye(6), range(6), scorer=lambda images, texts: images.pooled @ texts.pooled.T)


@pytest.mark.parametrize("protocol", ["coco", {"folds": 5}])
def test_a_protocol_is_an_object(protocol: Any) -> None:
    with pytest.raises(InputError, match=r"^evaluate: protocol is .*; give one such as itmbench.evaluation.Caption"):
        itmbench.evaluate(np.eye(4), np.eye(4), range(4), protocol=protocol)
