"""SEDRA's score against loops written from the equations, its switches, and its numerical care."""

import math
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from toy import toy_encoders
from toy_tokens import real, toy_items

from itmbench.encoders import Embeddings, FeatureEncoder
from itmbench.errors import InputError
from itmbench.methods.losses import TripletLoss
from itmbench.methods.sedra.inter import Words
from itmbench.methods.sedra.module import SEDRA, Regions

VARIANTS: list[dict[str, Any]] = [
    *({}, {"inter": "mean"}, {"words": False}, {"intra": "off"}, {"loss": TripletLoss()}),
    *({"paths": [path]} for path in ("global", "fused", "local")),
    {"paths": ["local", "global"]},
]


def method(**switches: Any) -> SEDRA:
    """A small SEDRA whose learned parts are not at their starting values."""
    L.seed_everything(3, verbose=False)
    arguments: dict[str, Any] = {"dim": 16, "intra_k": 3} | toy_encoders() | switches
    model = SEDRA(**arguments).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("words", "losses")):
                weight.add_(0.5 * torch.randn_like(weight))
    return model


def encoded(model: SEDRA) -> tuple[Embeddings, Embeddings]:
    """Three images and four texts as the encoders would give them; one text has no word, others have marks."""
    images, texts = toy_items([5, 5, 4], model.image.width, 1), toy_items([6, 1, 3, 6], model.text.width, 2)
    texts.words = torch.randint(5, 40, (4, 6), generator=torch.Generator().manual_seed(0))
    texts.words[:, 0] = -1
    return images, texts


def slow_score(model: SEDRA, images: Embeddings, texts: Embeddings, student_weight: float = 1.0) -> Tensor:
    """Every pair and every word alone, from the equations."""
    scores = torch.zeros(len(images), len(texts))
    temperatures = [math.exp(getattr(loss, "log_scale", torch.tensor(0.0))) for loss in model.losses]
    for i in range(len(images)):
        for j in range(len(texts)):
            for path, inverse in zip(model.paths, temperatures, strict=True):
                if path == "local":
                    own = slow_local(model, images, texts, i, j)
                else:
                    image, text = images[i : i + 1], texts[j : j + 1]
                    layers: Any = model.vectors[path]
                    own = float((layers["image"](image) * layers["text"](text)).sum())
                scores[i, j] += inverse * own * (student_weight if path in model.students else 1)
    return scores


def slow_local(model: SEDRA, images: Embeddings, texts: Embeddings, i: int, j: int) -> float:
    assert texts.words is not None and images.mask is not None
    layer, words, tokens = model.words, texts.words[j], real(texts, j)
    vectors, importances = [], []
    for token, word in zip(tokens, words.tolist(), strict=False):
        importance = float(layer.importance(token))
        if layer.vectors is None:
            vectors.append(layer.project(token))
            importances.append(importance)
        elif word >= 0:
            assert layer.importances is not None
            static = model.text.model.get_input_embeddings().weight[word]  # type: ignore[union-attr, operator]
            vectors.append(layer.project(normalize(static, dim=0)) + layer.vectors.weight[word])
            importances.append(importance + float(layer.importances.weight[word]))
    related = model.regions.intra(model.regions.project(images.tokens[i : i + 1]), images.mask[i : i + 1])  # type: ignore[index]
    regions = [model.regions.whole(images.pooled[i]), *related[0][images.mask[i]]]
    score, total = 0.0, sum(math.exp(importance) for importance in importances)
    for vector, importance in zip(vectors, importances, strict=True):
        cosines = [float(normalize(vector, dim=0) @ normalize(region, dim=0)) for region in regions]
        if model.inter.mode == "mean":
            found = sum(cosines) / len(cosines)
        else:
            found = math.log(sum(math.exp(20 * cosine) for cosine in cosines)) / 20
        score += math.exp(importance) / total * found
    return score


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
def test_score_is_that_of_the_slow_loop(switches: dict[str, Any]) -> None:
    model = method(**switches)
    images, texts = encoded(model)
    with torch.no_grad():
        found = model.score(model.embed(images, "image"), model.embed(texts, "text"))
        torch.testing.assert_close(found, slow_score(model, images, texts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("switches", [*VARIANTS[1:], {"intra": "full"}, {"intra": "static"}, {"intra_k": 1}], ids=str)
def test_every_switch_changes_the_scores(switches: dict[str, Any]) -> None:
    scores = []
    for model in (method(), method(**switches)):
        images, texts = encoded(model)
        with torch.no_grad():
            scores.append(model.score(model.embed(images, "image"), model.embed(texts, "text")))
    assert not torch.allclose(scores[0], scores[1], atol=1e-3)


def test_paths_learn_as_if_alone() -> None:
    """No weight of one path gets a gradient from the loss of another."""
    model = method().train()
    images, texts = (model.embed(*pair) for pair in zip(encoded(model), ("image", "text"), strict=True))  # type: ignore[arg-type]
    parts: dict[str, Any] = {
        "vectors.global": images.pooled[:, :16] @ texts.pooled[:, :16].T,
        "vectors.fused": images.pooled[:, 16:] @ texts.pooled[:, 16:].T,
        "regions": model.score_block(images, texts, images.pooled, texts.pooled),
    }
    names, weights = zip(*model.named_parameters(), strict=True)
    for path, scores in parts.items():
        gradients = torch.autograd.grad(scores.square().sum(), weights, retain_graph=True, allow_unused=True)
        reached = {
            name for name, gradient in zip(names, gradients, strict=True) if gradient is not None and gradient.any()
        }
        own = ("regions", "words", "text") if path == "regions" else (path,)
        assert any(name.startswith(path) for name in reached) and all(name.startswith(own) for name in reached)


@pytest.mark.parametrize(
    ("switches", "teachers"),
    [
        ({}, ["fused"]),
        ({"teachers": ["local", "global"]}, ["global", "local"]),
        ({"paths": ["global", "local"]}, ["global", "local"]),
    ],
)
def test_only_teachers_train_the_encoders(switches: dict[str, Any], teachers: list[str]) -> None:
    model = method(**switches).train()
    images, texts = encoded(model)
    word = model.text.word_embedding
    assert images.tokens is not None and texts.tokens is not None and word is not None
    given = [images.pooled, images.tokens, texts.pooled, texts.tokens, word.weight]
    for tensor in given:
        tensor.requires_grad_()
    image, text = model.embed(images, "image"), model.embed(texts, "text")
    width = image.pooled.shape[1] // max(1, len(model.vectors))
    scores = {
        path: image.pooled[:, at * width :][:, :width] @ text.pooled[:, at * width :][:, :width].T
        for at, path in enumerate(model.vectors)
    }
    scores["local"] = model.score_block(image, text, image.pooled, text.pooled)
    for path, score in scores.items():
        gradients = torch.autograd.grad(score.square().sum(), given, retain_graph=True, allow_unused=True)
        reached = any(gradient is not None and gradient.any() for gradient in gradients)
        assert reached == (path in teachers)


@pytest.mark.parametrize("paths", [[], ["global", "global"]])
def test_paths_without_sense_are_refused(paths: Any) -> None:
    with pytest.raises(InputError, match="name one or more of global, fused and local, each once"):
        method(paths=paths)


@pytest.mark.parametrize("weights", [[], [0.0, 1.0], [2.0]])
def test_weights_out_of_range_are_refused(weights: Any) -> None:
    with pytest.raises(InputError, match="give numbers above 0 and up to 1"):
        method(student_weights=weights)


def test_features_are_related_by_their_tokens() -> None:
    """Where tokens are no words, as with ready-made features, each has a vector of its own."""
    model = SEDRA(16, image=FeatureEncoder(12, 12), text=FeatureEncoder(10, 10)).eval()
    assert model.words.vectors is None
    texts = model.embed(toy_items([0, 3, 1], 10), "text")
    assert texts.tokens is not None and texts.mask is not None
    torch.testing.assert_close(texts.tokens[..., -1].sum(1), torch.tensor([0.0, 1.0, 1.0]))


def test_marks_and_padding_are_no_words() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(50, 8)
    layer = Words(12, 16, embedding).eval()
    texts = toy_items([6, 1, 3], 12)
    texts.words = torch.tensor([[-1, 7, 8, 7, 9, -1], [-1] * 6, [-1, 7, 8, -1, -1, -1]])
    rows, mask = layer(texts, embedding, learns=True)
    assert mask.sum(1).tolist() == [4, 0, 2] and not rows[~mask].any()
    torch.testing.assert_close(rows[0, 1, :-1], rows[0, 3, :-1])  # one word, one vector, in any place
    torch.testing.assert_close(rows[..., -1].sum(1), torch.tensor([1.0, 0.0, 1.0]))


def test_extreme_inputs_have_finite_scores_and_gradients() -> None:
    """A text without words, a single region, equal and opposite vectors."""
    model = method().train()
    images, texts = toy_items([1, 5, 5], 17, seed=4), toy_items([0, 1, 5, 5], 17, seed=5)
    assert images.tokens is not None and texts.tokens is not None
    with torch.no_grad():
        images.tokens[..., -1], texts.tokens[..., -1] = 0.0, 0.2
        texts.tokens[1, 0] = images.tokens[0, 0]
        texts.tokens[2] = -images.tokens[1]
        images.tokens[2] = images.tokens[2, :1]
    leaves = [images.tokens.requires_grad_(), texts.tokens.requires_grad_()]
    scores = model.score(images, texts)
    scores.square().sum().backward()
    assert scores.isfinite().all()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


def test_tokens_in_half_precision_are_close() -> None:
    """As they wait on a GPU."""
    model = method()
    with torch.no_grad():
        images, texts = (model.embed(*pair) for pair in zip(encoded(model), ("image", "text"), strict=True))  # type: ignore[arg-type]
        halves = [
            Embeddings(items.pooled, items.tokens.half(), items.mask)
            for items in (images, texts)
            if items.tokens is not None
        ]
        torch.testing.assert_close(model.score(*halves), model.score(images, texts), rtol=0, atol=5e-2)


def test_blocks_bound_what_training_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks keep their inputs only; one block keeps some 16 bytes a relation."""
    images, texts = toy_items([24] * 16, 17), toy_items([12] * 16, 17)
    for items in (images, texts):
        assert items.tokens is not None
        items.tokens.requires_grad_()
    kept = []
    for limit in (1 << 26, 16 * 24 * 12):
        monkeypatch.setattr("itmbench.methods.token_matcher._TRAINED", limit)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            method().train().score(images, texts)
        kept.append(sum(sizes.values()) / (16 * 24 * 16 * 12))
    assert 4 < kept[0] < 24
    assert kept[1] < 5


@pytest.mark.parametrize("intra", ["topk", "full", "static", "off"])
def test_encodes_images_alone_empty_and_padded(intra: Any) -> None:
    """The same regions in any batch; an image without a real token keeps the whole image, with finite gradients."""
    torch.manual_seed(0)
    layer = Regions(12, 16, intra, 3).eval()
    inputs = toy_items([5, 0, 1, 3], dim=12)
    assert inputs.tokens is not None and inputs.mask is not None
    inputs.tokens.requires_grad_()
    rows, mask = layer(inputs)
    assert not rows[~mask].any() and mask.sum(1).tolist() == [6, 1, 2, 4]
    alone, _ = layer(Embeddings(inputs.pooled[3:], inputs.tokens[3:, :3], inputs.mask[3:, :3]))
    torch.testing.assert_close(alone, rows[3:, :4])
    torch.testing.assert_close(rows.norm(dim=2), mask.float())
    (rows.square() * 0.3 + rows).sum().backward()
    assert inputs.tokens.grad is not None and inputs.tokens.grad.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in layer.parameters() if weight.grad is not None)


@pytest.mark.parametrize("switches", [{}, {"teachers": ["global"]}, {"paths": ["fused", "local"]}], ids=str)
def test_a_weight_of_the_students_scales_their_logits(switches: dict[str, Any]) -> None:
    model = method(**switches)
    images, texts = encoded(model)
    with torch.no_grad():
        pair = model.embed(images, "image"), model.embed(texts, "text")
        for weight in (1.0, 0.3):
            image, text = (model.as_candidate(*each, weight) for each in zip(pair, ("image", "text"), strict=True))  # type: ignore[arg-type]
            found = model.score(image, text)
            expected = slow_score(model, images, texts, weight)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("switches", "weights"),
    [
        ({}, [1.0, 0.3, 0.1]),
        ({"student_weights": [0.5, 1.0]}, [0.5, 1.0]),
        ({"teachers": ["global", "fused", "local"]}, []),
        ({"paths": ["global", "local"]}, []),
    ],
)
def test_validation_chooses_only_where_there_are_students(switches: dict[str, Any], weights: list[float]) -> None:
    assert list(method(**switches).candidates()) == weights


def test_frozen_encoders_have_no_students() -> None:
    """All paths count in full, whatever the candidates and the teachers."""
    scores, encoders = [], toy_encoders()
    for encoder in encoders.values():
        encoder.freeze = True
    for switches in ({}, {"student_weights": [0.1]}, {"teachers": ["global"]}):
        model = method(**encoders, **switches)
        assert not model.candidates() and model.choices == {}
        images, texts = encoded(model)
        with torch.no_grad():
            pair = model.embed(images, "image"), model.embed(texts, "text")
            scores.append(model.score(model.at_test(pair[0], "image"), model.at_test(pair[1], "text")))
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


def test_pretrained_encoders_learn_from_all_paths() -> None:
    encoders = toy_encoders()
    assert method(**encoders).teachers == ["fused"]
    encoders["image"].pretraining = "unimodal"
    assert method(**encoders).teachers == ["fused"]  # the text encoder still starts from nothing
    encoders["text"].pretraining = "unimodal"
    assert method(**encoders).teachers == ["global", "fused", "local"]
    encoders["text"].freeze, encoders["text"].pretraining = True, "scratch"
    assert method(**encoders).teachers == ["global", "fused", "local"]


def test_a_chosen_weight_holds_at_test() -> None:
    model = method()
    _, texts = encoded(model)
    model.choose(0.3)
    assert model.choices == {"student_weight": 0.3}
    with torch.no_grad():
        items = model.embed(texts, "text")
        found, expected = model.at_test(items, "text"), model.as_candidate(items, "text", 0.3)
    assert torch.equal(found.pooled, expected.pooled) and not torch.equal(found.pooled, items.pooled)
    assert found.tokens is not None and expected.tokens is not None and torch.equal(found.tokens, expected.tokens)
