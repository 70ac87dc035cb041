"""Protocols: named, versioned definitions of what is measured, stored in every result. Only equal ones are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from itmbench.data.corpus import Corpus, Rows
from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import chance
from itmbench.evaluation.evaluation import Evaluation
from itmbench.evaluation.grid import Grid
from itmbench.evaluation.label import label_queries, label_summary
from itmbench.evaluation.ranking import Normaliser, Ties, check_options
from itmbench.evaluation.scoring import Scorer
from itmbench.evaluation.shortlist import Shortlist
from itmbench.evaluation.stage import EvaluatedStage

SIDES = ("i2t", "t2i")
RSUM = (1, 5, 10)
"""The K whose recalls rSum adds up, whatever other K are asked for."""


class _Options:
    """Name, version, objective and options of a protocol."""

    name: ClassVar[str]
    version: ClassVar[int]
    objective: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """All of them, ready for JSON."""
        fields = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {"name": self.name, "version": self.version, "objective": self.objective, **fields}


@dataclass(frozen=True)
class CaptionProtocol(_Options):
    """Caption retrieval among the images of a stage and all their texts, in both directions.

    Metrics in addition to those of `itmbench.evaluation.caption_retrieval`:

    - "chance/i2t/R@1" ... "chance/rSum": expected values of a random ranking.
    - "truth/i2t/R@1" ... "truth/t2i/R@10" and "truth/rSum", if the corpus lists which texts are true of which images:
      recalls of the first true match within the stage. Queries are the texts whose truth is listed and the images that
      own one; any other text counts as true of its own image only. The idea of complete truth is that of ECCV Caption
      (Chun et al., ECCV 2022), which reports mAP@R instead.
    - "shortlist/i2t/lost R@1" ..., with a shortlist: recall of exact scoring minus that of the shortlist, over 200
      random queries of each direction.
    - "hard_negative_accuracy", if the corpus lists near twins: the share of triples (image, twin, text of the image
      that is false of the twin) in which the text scores strictly higher with its image.

    Args:
        ks: the K of R@K; 1, 5 and 10, of which rSum is made, are added.
        ties: "pessimistic" or "optimistic".
        shortlist: number of candidates, nearest by the cosine of the pooled vectors, that a method with a score of its
            own scores for each query; None scores every pair. Methods that score by this cosine are not affected.

    Raises:
        InputError: an option is unknown or out of range.
    """

    name: ClassVar[str] = "caption-retrieval"
    version: ClassVar[int] = 2
    objective: ClassVar[str] = "rSum"

    ks: tuple[int, ...] = (1, 5, 10)
    ties: Ties = "pessimistic"
    shortlist: int | None = None

    def __post_init__(self) -> None:
        check_options(self.ties, cutoffs=self.ks)
        object.__setattr__(self, "ks", tuple(sorted({*RSUM, *self.ks})))
        if self.shortlist is not None and self.shortlist < max(self.ks):
            raise InputError(f"shortlist: {self.shortlist} candidates are too few for R@{max(self.ks)}; give more")

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
            InputError: a table has the wrong length, or an embedding or score is NaN or infinite (with the item's id).
        """
        here = EvaluatedStage.of(corpus, stage, images, texts)
        device = here.images.pooled.device
        own, true, triples = (
            torch.from_numpy(rows).to(device)
            for rows in (
                np.stack([here.owner, np.arange(len(here.owner))], axis=1),
                here.true_pairs,
                here.hard_triples(),
            )
        )

        def name(row: int) -> str:
            return f"image {here.image_ids[row]}"

        grid = Grid(here.images, here.texts, scorer, name)
        shortlist = None
        if self.shortlist is not None and scorer is not None:
            shortlist = Shortlist(here.images, here.texts, scorer, self.shortlist, name)
        pair_sets = [own, true] if here.listed.any() else [own]
        [(i2t, t2i), *truth] = (shortlist or grid).ranks(pair_sets, self.ties)
        metrics = _caption_summary(i2t, t2i, self.ks) | self._chance(here)
        if shortlist is not None:
            metrics |= shortlist.lost(own, (i2t, t2i), self.ties, self.ks)
        for true_i2t, true_t2i in truth:
            owners, listed = np.unique(here.owner[here.listed]), np.flatnonzero(here.listed)
            summary = _caption_summary(true_i2t[torch.from_numpy(owners)], true_t2i[torch.from_numpy(listed)], self.ks)
            metrics |= {f"truth/{key}": value for key, value in summary.items() if "R@" in key or key == "rSum"}
        parts = [("i2t", here.image_ids, np.arange(len(here.image_ids)), i2t), ("t2i", here.text_ids, here.owner, t2i)]
        if len(triples):
            matched, twin = grid.scores(triples[:, [0, 2]]), grid.scores(triples[:, [1, 2]])
            metrics["hard_negative_accuracy"] = float((matched > twin).double().mean())
            image, other, text = triples.T.cpu().numpy()
            twin_ids = np.asarray(
                [f"{here.text_ids[t]} {here.image_ids[o]}" for t, o in zip(text, other, strict=True)], dtype=object
            )
            parts.append(("hard", twin_ids, image, 2 - (matched > twin).long()))
        return Evaluation(metrics, _per_query("rank", here, parts))

    def _chance(self, here: EvaluatedStage) -> dict[str, float]:
        """Expected recalls of a random ranking."""
        texts_of_image = np.bincount(here.owner, minlength=len(here.image_ids))
        recalls = {}
        for k in self.ks:
            recalls[f"chance/i2t/R@{k}"] = chance.hit_rate(texts_of_image, len(here.owner), k)
            recalls[f"chance/t2i/R@{k}"] = chance.hit_rate(np.ones_like(here.owner), len(here.image_ids), k)
        return recalls | {"chance/rSum": 100 * sum(recalls[f"chance/{side}/R@{k}"] for side in SIDES for k in RSUM)}


@dataclass(frozen=True)
class LabelProtocol(_Options):
    """Label retrieval: query images against the texts of the gallery, query texts against its images.

    Metrics are those of `itmbench.evaluation.label_retrieval` with the prefixes "i2t/" and "t2i/"; "mAP", the mean of
    both directions; and "chance/i2t/mAP", "chance/t2i/mAP" and "chance/mAP", expected values of a random ranking.

    Args:
        cutoffs: the K of the metrics at K.
        normaliser: divisor of AP at K; see `itmbench.evaluation.functional.average_precision`.
        ties: "pessimistic" or "optimistic".
        gallery: "all", as published, includes training items; "unseen" excludes them.

    Raises:
        InputError: an option is unknown or out of range.
    """

    name: ClassVar[str] = "label-retrieval"
    version: ClassVar[int] = 2
    objective: ClassVar[str] = "mAP"

    cutoffs: tuple[int, ...] = (50,)
    normaliser: Normaliser = "retrieved"
    ties: Ties = "pessimistic"
    gallery: Literal["all", "unseen"] = "all"

    def __post_init__(self) -> None:
        check_options(self.ties, self.normaliser, self.cutoffs)
        if self.gallery not in ("all", "unseen"):
            raise InputError(f"gallery: {self.gallery!r} is unknown; choose one of all, unseen")

    def evaluate(
        self, corpus: Corpus, stage: str, images: Embeddings, texts: Embeddings, scorer: Scorer | None = None
    ) -> Evaluation:
        """Evaluate a stage of a corpus with labels; arguments and errors as in ``CaptionProtocol.evaluate``.

        Raises:
            InputError: also if the corpus has no labels, or the gallery is empty.
        """
        if corpus.labels is None:
            raise InputError(f"{corpus.name}: has no labels; evaluate it with the caption-retrieval protocol")
        here = EvaluatedStage.of(corpus, stage, images, texts)
        searched = self.searched(corpus, stage)
        if not len(searched) or not len(here.stage.queries):
            raise InputError(f"{corpus.name}, {stage}: no queries, or an empty gallery ({self.gallery})")
        labels = corpus.labels[here.stage.images]
        text_labels = labels[here.owner]
        query_images, gallery_images = here.positions(here.stage.queries), here.positions(searched)
        query_texts, gallery_texts = here.texts_of(query_images), here.texts_of(gallery_images)

        i2t = label_queries(
            here.images[torch.from_numpy(query_images)],
            here.texts[torch.from_numpy(gallery_texts)],
            labels[query_images],
            text_labels[gallery_texts],
            self.cutoffs,
            self.normaliser,
            scorer,
            self.ties,
            lambda row: f"image {here.image_ids[query_images[row]]}",
        )
        t2i = label_queries(
            here.texts[torch.from_numpy(query_texts)],
            here.images[torch.from_numpy(gallery_images)],
            text_labels[query_texts],
            labels[gallery_images],
            self.cutoffs,
            self.normaliser,
            None if scorer is None else lambda texts, images: scorer(images, texts).T,
            self.ties,
            lambda row: f"text {here.text_ids[query_texts[row]]}",
        )
        metrics = {f"i2t/{key}": value for key, value in label_summary(i2t).items()}
        metrics |= {f"t2i/{key}": value for key, value in label_summary(t2i).items()}
        for direction, queries, items in (("i2t", i2t, len(gallery_texts)), ("t2i", t2i, len(gallery_images))):
            metrics[f"chance/{direction}/mAP"] = chance.average_precision(queries["relevant"].cpu().numpy(), items)
        for prefix in ("", "chance/"):
            metrics[f"{prefix}mAP"] = (metrics[f"{prefix}i2t/mAP"] + metrics[f"{prefix}t2i/mAP"]) / 2
        image_ids, text_ids = here.image_ids[query_images], here.text_ids[query_texts]
        parts = [("i2t", image_ids, query_images, i2t["AP"]), ("t2i", text_ids, here.owner[query_texts], t2i["AP"])]
        return Evaluation(metrics, _per_query("ap", here, parts))

    def searched(self, corpus: Corpus, stage: str) -> Rows:
        """Rows of the images whose images and texts form the gallery of a stage."""
        gallery = corpus.stages[stage].gallery
        return gallery if self.gallery == "all" else np.setdiff1d(gallery, corpus.train)


Protocol = CaptionProtocol | LabelProtocol


def protocol_for(corpus: Corpus) -> Protocol:
    """The default protocol of a corpus: label retrieval if it has labels, else caption retrieval."""
    return CaptionProtocol() if corpus.labels is None else LabelProtocol()


Ids = NDArray[Any]


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


def _caption_summary(i2t: Tensor, t2i: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """The metrics of `itmbench.evaluation.caption_retrieval`, from the ranks `[Ni]` and `[Nt]` of both directions."""
    metrics: dict[str, float] = {}
    for direction, ranks in (("i2t", i2t), ("t2i", t2i)):
        for k in ks:
            metrics[f"{direction}/R@{k}"] = float((ranks <= k).double().mean())
        metrics[f"{direction}/MedR"] = float(ranks.double().quantile(0.5).floor())
        metrics[f"{direction}/MeanR"] = float(ranks.double().mean())
    metrics["rSum"] = 100 * sum(metrics[f"{side}/R@{k}"] for side in SIDES for k in RSUM)
    return metrics
