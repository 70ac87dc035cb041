"""Evaluates on N processes, shared; writes what each finds and how many pairs it scored. Called by test_ranks.py."""

from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
from evaluation.test_protocol import embed, labelled, with_truth
from evaluation.toy_retrieval import lopsided
from torch import Tensor, distributed

from itmbench.encoders.embeddings import Embeddings
from itmbench.errors import InputError
from itmbench.evaluation import CaptionProtocol, LabelProtocol, label, scoring
from itmbench.evaluation.ranks import shared_among_ranks

CASES: dict[str, tuple[Any, Any]] = {
    "captions": (CaptionProtocol(), with_truth),
    "folds": (CaptionProtocol(folds=2), with_truth),
    "shortlist": (CaptionProtocol(shortlist=12), with_truth),
    "labels": (LabelProtocol(), labelled),
    "label shortlist": (LabelProtocol(shortlist=12), labelled),
}


def found(name: str, scored: bool) -> dict[str, Any]:
    protocol, make = CASES[name]
    corpus, pairs = make(), []

    def counted(images: Embeddings, texts: Embeddings) -> Tensor:
        pairs.append(len(images) * len(texts))
        return lopsided(images, texts)

    evaluation = protocol.evaluate(corpus, "test", *embed(corpus), counted if scored else None)
    columns = {key: column.tolist() for key, column in evaluation.per_query.items()}
    return {"metrics": evaluation.metrics, "per_query": columns, "pairs": sum(pairs)}


def refused() -> str:
    def broken(images: Embeddings, texts: Embeddings) -> Tensor:
        scores = lopsided(images, texts)
        return scores.masked_fill(images.pooled[:, :1] == table.pooled[7, 0], torch.nan)

    corpus = with_truth()
    table, texts = embed(corpus)
    try:
        CaptionProtocol().evaluate(corpus, "test", table, texts, broken)
    except InputError as error:
        return str(error)
    return ""


def one_rank(rank: int, ranks: int, folder: Path) -> None:
    torch.set_num_threads(1)
    scoring._SCORER_TILE, scoring._COSINE_TILE["cpu"], label._QUERIES = 60, 60, 4
    if ranks > 1:
        store = distributed.FileStore(f"{folder}/store{ranks}", ranks)
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    with shared_among_ranks(ranks > 1):
        results: dict[str, Any] = {
            f"{name}/{scored}": found(name, scored) for name in CASES for scored in (False, True)
        }
        results["refused"] = refused()
    torch.save(results, f"{folder}/{ranks}.{rank}.pt")


def run(folder: Path) -> None:
    """As one process, as two, and as three, all forked: none imports everything anew."""
    for count in (1, 2, 3):
        multiprocessing.start_processes(one_rank, (count, folder), nprocs=count, start_method="fork")
