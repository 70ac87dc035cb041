"""Protocols: named, versioned definitions of what is measured, stored in every result. Only equal ones are compared."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders.embeddings import Embeddings, Items
from itmbench.errors import InputError
from itmbench.evaluation import caption, chance
from itmbench.evaluation.caption import RSUM
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.label import label_queries, label_summary
from itmbench.evaluation.ranking import Normaliser, Ties, check_options, require_whole
from itmbench.evaluation.scoring import Name, Scorer
from itmbench.evaluation.shortlist import Shortlist, sampled
from itmbench.evaluation.stage import EvaluatedStage

Pair = tuple[Items, Items]
"""Queries and gallery of one direction."""
LabelPair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Multi-hot labels of both."""
Unseen = NDArray[np.bool_] | None
"""Whether each item of the gallery is outside the training items; None if nothing was trained."""


class _Options:
    """Name, version, objective and options of a protocol."""

    name: ClassVar[str]
    version: ClassVar[int]
    objective: ClassVar[str]

    def compared(self, items: Embeddings) -> Embeddings:
        """What is compared of test embeddings: all of them."""
        return items

    def as_dict(self) -> dict[str, Any]:
        """All of them, ready for JSON."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {"name": self.name, "version": self.version, "objective": self.objective, **fields}


@dataclass(frozen=True)
class CaptionProtocol(_Options):
    """Caption retrieval among the images of a stage and all their texts, in both directions.

    Metrics in addition to those of `itmbench.evaluation.caption_retrieval`:

    - "chance/i2t/R@1" ... "chance/rSum": expected values of a random ranking.
    - "truth/...", if the corpus lists which texts are true of which images: within the stage, recalls of the first true
      match ("truth/i2t/R@1" ... "truth/rSum"), and what ECCV Caption (Chun et al., ECCV 2022) recommends instead,
      "truth/i2t/mAP@R", "truth/i2t/R-Precision" and so on; without a direction, the means of both. Queries are the
      texts whose truth is listed and the images that own one; any other text counts as true of its own image only.
    - "folds/i2t/R@1" ... "folds/rSum", with folds: means over the folds, each evaluated by itself.
    - "shortlist/i2t/lost R@1" ..., with a shortlist: recall of exact scoring minus that of the shortlist, over 200
      random queries of each direction.
    - "hard_negative_accuracy", if the corpus lists near twins: the share of triples (image, twin, text of the image
      that is false of the twin) in which the text scores strictly higher with its image.

    Args:
        ks: the K of R@K; 1, 5 and 10, of which rSum is made, are added.
        ties: "pessimistic" or "optimistic".
        shortlist: number of candidates, nearest by the cosine of the pooled vectors, that a method with a score of its
            own scores for each query; None scores every pair. Methods that score by this cosine are not affected.
        folds: number of consecutive parts of the test images, equal or nearly so, that are also evaluated one by one;
            5 gives COCO's 1K figures beside those of all 5K (``fold5`` in the VSE++ and SCAN code). None for none.

    Raises:
        InputError: an option is unknown or out of range.
    """

    name: ClassVar[str] = "caption-retrieval"
    version: ClassVar[int] = 2
    objective: ClassVar[str] = "rSum"

    ks: tuple[int, ...] = RSUM
    ties: Ties = "pessimistic"
    shortlist: int | None = None
    folds: int | None = None

    def __post_init__(self) -> None:
        check_options(self.ties, cutoffs=self.ks)
        object.__setattr__(self, "ks", tuple(sorted({*RSUM, *self.ks})))
        if self.shortlist is not None:
            require_whole(f"shortlist, for R@{max(self.ks)}", self.shortlist, max(self.ks))
        if self.folds is not None:
            require_whole("folds", self.folds, 2)

    def check_folds(self, images: int) -> None:
        """Raise InputError if there are fewer test images than folds."""
        if self.folds is not None and images < self.folds:
            raise InputError(f"folds: {self.folds} folds of {images} test images; give fewer")

    def evaluate(
        self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
    ) -> Evaluation:
        """Evaluate a stage.

        Args:
            corpus: the images and texts.
            stage: "val" or "test".
            images: embeddings of ``corpus.stages[stage].images`` `[Ni]`, in this order.
            texts: embeddings of ``corpus.texts_of(corpus.stages[stage].images)`` `[Nt]`, in this order.
            scorer: (image tile, text tile) -> scores `[bi, bt]`; None is the cosine of the pooled vectors.

        Raises:
            InputError: a table has the wrong length, an embedding or score is NaN or infinite (with the item's id), or
                there are fewer test images than folds.
        """
        here = EvaluatedStage.of(corpus, stage, images, texts)
        device = here.images.pooled.device
        pairs, triples, *matches = (
            torch.from_numpy(rows).to(device) for rows in (here.own_pairs, here.hard_triples(), *here.asked_pairs())
        )
        i2t_matches, t2i_matches = matches
        name = partial(_named, here.image_ids)
        search = self._search(here.images, here.texts, scorer, name)
        ranks, places = search.ranks_and_places(pairs, (i2t_matches, t2i_matches), self.ties)
        metrics = caption.summary(ranks, self.ks)
        metrics |= _under("chance", caption.expected_by_chance(here, self.ks))
        if isinstance(search, Shortlist):
            metrics |= search.lost(pairs, ranks, self.ties, self.ks)
        if here.listed.any():
            metrics |= _under("truth", caption.complete_truth((i2t_matches, t2i_matches), places, self.ks))
        if self.folds is not None and stage == "test":
            metrics |= _under("folds", self._means_over_folds(here, self.folds, scorer))
        all_images = np.arange(len(here.image_ids))
        parts = [("i2t", here.image_ids, all_images, ranks[0]), ("t2i", here.text_ids, here.owner, ranks[1])]
        if len(triples):
            grid = Grid(here.images, here.texts, scorer, name)
            matched, twin = grid.scores(triples[:, [0, 2]]), grid.scores(triples[:, [1, 2]])
            metrics["hard_negative_accuracy"] = float((matched > twin).double().mean())
            image, other, text = triples.T.cpu().numpy()
            twin_ids = np.asarray(
                [f"{here.text_ids[t]} {here.image_ids[o]}" for t, o in zip(text, other, strict=True)], dtype=object
            )
            parts.append(("hard", twin_ids, image, 2 - (matched > twin).long()))
        return Evaluation(metrics, _per_query("rank", here, parts))

    def _search(self, images: Items, texts: Items, scorer: Scorer | None, name: Name) -> Grid | Shortlist:
        if self.shortlist is None or scorer is None:
            return Grid(images, texts, scorer, name)
        return Shortlist(images, texts, scorer, self.shortlist, name)

    def _means_over_folds(self, here: EvaluatedStage, number: int, scorer: Scorer | None) -> dict[str, float]:
        """Mean recalls and rSum over consecutive parts of the images, each with its texts."""
        self.check_folds(len(here.image_ids))
        results = []
        for rows in np.array_split(np.arange(len(here.image_ids)), number):
            images, texts = torch.from_numpy(rows), here.texts_of(rows)
            ids = here.image_ids[rows]
            if not len(texts):
                raise InputError(f"folds: the images {ids[0]} to {ids[-1]} have no text; give fewer folds")
            search = self._search(
                here.images.select(images), here.texts.select(torch.from_numpy(texts)), scorer, partial(_named, ids)
            )
            pairs = np.stack([here.owner[texts] - rows[0], np.arange(len(texts))], axis=1)
            device = here.images.pooled.device
            ranks = search.ranks(torch.from_numpy(pairs).to(device), self.ties)
            results.append(caption.recalls(ranks, self.ks))
        return {key: sum(result[key] for result in results) / number for key in results[0]}


@dataclass(frozen=True)
class LabelProtocol(_Options):
    """Label retrieval: query images against the texts of the gallery, query texts against its images.

    Metrics are those of `itmbench.evaluation.label_retrieval` with the prefixes "i2t/" and "t2i/", and:

    - "mAP": the mean of both directions.
    - "unseen/i2t/mAP", "unseen/t2i/mAP" and "unseen/mAP": the same among the items of the gallery that are not training
      items; left out if all are, or if nothing was trained. Published galleries include the training items.
    - "chance/i2t/mAP", "chance/t2i/mAP" and "chance/mAP": expected values of a random ranking of the whole gallery.
    - "shortlist/i2t/lost mAP" and "shortlist/t2i/lost mAP", with a shortlist: mAP of exact scoring minus that of the
      shortlist, over 200 random queries of each direction.

    Args:
        cutoffs: the K of the metrics at K.
        normaliser: divisor of AP at K; see `itmbench.evaluation.functional.average_precision`.
        ties: "pessimistic" or "optimistic".
        shortlist: as in `CaptionProtocol`; a candidate that tied with the first one behind it is left out.

    Raises:
        InputError: an option is unknown or out of range.
    """

    name: ClassVar[str] = "label-retrieval"
    version: ClassVar[int] = 2
    objective: ClassVar[str] = "mAP"

    cutoffs: tuple[int, ...] = (1, 5, 10, 50, 100, 500)
    normaliser: Normaliser = "retrieved"
    ties: Ties = "pessimistic"
    shortlist: int | None = None

    def __post_init__(self) -> None:
        check_options(self.ties, self.normaliser, self.cutoffs)
        if self.shortlist is not None:
            require_whole("shortlist", self.shortlist, 1)

    def as_dict(self) -> dict[str, Any]:
        """All options; a shortlist only if there is one, so that records of before it existed stay comparable."""
        return {key: value for key, value in super().as_dict().items() if key != "shortlist" or value is not None}

    def evaluate(
        self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
    ) -> Evaluation:
        """Evaluate a stage of a corpus with labels; arguments and errors as in ``CaptionProtocol.evaluate``.

        Raises:
            InputError: also if the corpus has no labels, or there is no query or nothing to search.
        """
        if corpus.labels is None:
            raise InputError(f"{corpus.name}: has no labels; evaluate it with the caption-retrieval protocol")
        here = EvaluatedStage.of(corpus, stage, images, texts)
        if not len(here.stage.gallery) or not len(here.stage.queries):
            raise InputError(f"{corpus.name}, {stage}: no queries, or an empty gallery")
        labels, unseen = corpus.labels[here.stage.images], ~np.isin(here.stage.images, corpus.train)
        text_labels = labels[here.owner]
        query_images, gallery_images = here.positions(here.stage.queries), here.positions(here.stage.gallery)
        query_texts, gallery_texts = here.texts_of(query_images), here.texts_of(gallery_images)

        i2t = self._queries(
            (here.images.select(torch.from_numpy(query_images)), here.texts.select(torch.from_numpy(gallery_texts))),
            (labels[query_images], text_labels[gallery_texts]),
            scorer,
            lambda row: f"image {here.image_ids[query_images[row]]}",
            unseen[here.owner[gallery_texts]] if len(corpus.train) else None,
        )
        t2i = self._queries(
            (here.texts.select(torch.from_numpy(query_texts)), here.images.select(torch.from_numpy(gallery_images))),
            (text_labels[query_texts], labels[gallery_images]),
            None if scorer is None else lambda texts, images: scorer(images, texts).T,
            lambda row: f"text {here.text_ids[query_texts[row]]}",
            unseen[gallery_images] if len(corpus.train) else None,
        )
        metrics: dict[str, float] = {}
        for side, queries, items in (("i2t", i2t, len(gallery_texts)), ("t2i", t2i, len(gallery_images))):
            lost = queries.pop("lost", None)
            variants = {key.partition("/")[0]: queries.pop(key) for key in [*queries] if key.endswith("/AP")}
            metrics |= _under(side, label_summary(queries))
            metrics[f"chance/{side}/mAP"] = chance.average_precision(queries["relevant"].cpu().numpy(), items)
            metrics |= {f"{variant}/{side}/mAP": float(values.mean()) for variant, values in variants.items()}
            if lost is not None:
                metrics[f"shortlist/{side}/lost mAP"] = float(lost.mean())
        for prefix in ("", "chance/", "unseen/", "optimistic/"):
            if f"{prefix}i2t/mAP" in metrics and f"{prefix}t2i/mAP" in metrics:
                metrics[f"{prefix}mAP"] = (metrics[f"{prefix}i2t/mAP"] + metrics[f"{prefix}t2i/mAP"]) / 2
        image_ids, text_ids = here.image_ids[query_images], here.text_ids[query_texts]
        parts = [("i2t", image_ids, query_images, i2t["AP"]), ("t2i", text_ids, here.owner[query_texts], t2i["AP"])]
        return Evaluation(metrics, _per_query("ap", here, parts))

    def _queries(
        self, sides: Pair, labels: LabelPair, scorer: Scorer | None, name: Name, unseen: Unseen
    ) -> dict[str, Tensor]:
        """Metrics per query of one direction; with a shortlist, "lost" is the AP that it costs some of them."""
        (queries, gallery), (hot, gallery_hot) = sides, labels
        measure = partial(
            label_queries, cutoffs=self.cutoffs, normaliser=self.normaliser, scorer=scorer, ties=self.ties
        )
        metrics = measure(queries, gallery, hot, gallery_hot, name=name, unseen=unseen, shortlist=self.shortlist)
        if self.shortlist is not None and scorer is not None:
            rows = sampled(len(queries))
            exact = measure(
                queries.select(rows), gallery, hot[rows.numpy()], gallery_hot, name=lambda row: name(int(rows[row]))
            )
            metrics["lost"] = exact["AP"] - metrics["AP"][rows]
        return metrics


Protocol = CaptionProtocol | LabelProtocol


def protocol_for(corpus: Corpus) -> Protocol:
    """The default protocol of a corpus: label retrieval if it has labels, else caption retrieval."""
    return CaptionProtocol() if corpus.labels is None else LabelProtocol()


Ids = NDArray[Any]


def _named(image_ids: Ids, row: int) -> str:
    return f"image {image_ids[row]}"


def _per_query(column: str, here: EvaluatedStage, parts: list[tuple[str, Ids, Rows, Tensor]]) -> dict[str, Ids]:
    """Concatenate the queries of all directions, given as (direction, query ids, positions of their images, values)."""
    images = np.concatenate([part[2] for part in parts])
    return {
        "direction": np.repeat(np.asarray([part[0] for part in parts], dtype=object), [len(part[1]) for part in parts]),
        "query": np.concatenate([part[1] for part in parts]),
        "image": here.image_ids[images],
        "group": here.group_ids[images],
        column: np.concatenate([part[3].cpu().numpy() for part in parts]),
    }


def _under(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}/{key}": value for key, value in metrics.items()}
