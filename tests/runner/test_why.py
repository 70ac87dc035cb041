"""Explanations that a cell stores: of the model that was tested, of right and wrong answers, and small."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from toy import TOY_MODEL, ToyData, toy_encoders

import itmbench
from itmbench import store
from itmbench.cli.main import main
from itmbench.evaluation.answers import Answer, Example
from itmbench.methods.explained import corpus_items, explain_pairs
from itmbench.methods.mcr_dgn.module import MCRDGN
from itmbench.methods.sedra import SEDRA
from itmbench.report.cells import read_examples, read_explanations
from itmbench.runner.why import SEEN, explanations, rounded


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cells of both systems and of one that explains nothing, by method; the first on captions."""
    folder = tmp_path_factory.mktemp("why")
    spec: dict[str, Any] = {"name": "small", "datasets": {}, "methods": {}, "seeds": [0]}
    spec["config"] = {"trainer": {"max_epochs": 2, "accelerator": "cpu", "logger": False}}
    for name, labels in (("captions", False), ("tags", True)):
        data = {"class_path": "toy.ToyData", "init_args": {"root": str(folder / name), "labels": labels, "copies": 1}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"data": data}))
        spec["datasets"][name] = f"{name}.yaml"
    for method in ("SEDRA", "MCRDGN", "DualEncoder"):
        model = {"class_path": method, "init_args": copy.deepcopy(TOY_MODEL["init_args"])}
        if method == "MCRDGN":
            model["init_args"]["graph_weights"] = [0.5]
        (folder / f"{method}.yaml").write_text(yaml.safe_dump({"model": model}))
        spec["methods"][method] = f"{method}.yaml"
    spec["leave_out"] = [
        {"dataset": "captions", "method": "MCRDGN"},
        {"dataset": "tags", "method": "SEDRA"},
        {"dataset": "tags", "method": "DualEncoder"},
    ]
    (folder / "small.yaml").write_text(yaml.safe_dump(spec))
    assert main(["bench", str(folder / "small.yaml"), "--results", str(folder / "results")]) == 0
    return {result.method: cell for cell, result in store.results(folder / "results")}


def corpus_of(cell: Path) -> Any:
    content = yaml.safe_load((cell / "config.yaml").read_text())["data"]["init_args"]
    return ToyData(content["root"], labels=content["labels"], copies=1).corpus


def test_pairs_are_those_of_the_checkpoint_right_and_wrong(cells: dict[str, Path]) -> None:
    stored, shown = read_explanations(cells["SEDRA"]), read_examples(cells["SEDRA"])
    assert stored is not None and shown is not None
    model, corpus = itmbench.load(cells["SEDRA"]), corpus_of(cells["SEDRA"])
    image_of, text_of = ({id_: row for row, id_ in enumerate(ids)} for ids in (corpus.image_ids, corpus.text_ids))
    queries = {(query.side, query.id): query for query in shown.queries}
    assert [query.side for query in stored.queries] == ["i2t"] * 3 + ["t2i"] * 3
    firsts = {
        side: [bool(queries[side, q.id].results[0].right) for q in stored.queries if q.side == side]
        for side in ("i2t", "t2i")
    }
    assert {len({*first}) for first in firsts.values()} == {2}  # some are right and some are wrong
    for query in stored.queries:
        right, wrong = query.pairs
        results = {result.id: result for result in queries[query.side, query.id].results}
        other = "text_id" if query.side == "i2t" else "image"
        assert getattr(wrong, other) == next(result.id for result in results.values() if not result.right)
        assert corpus.text_to_image[text_of[right.text_id]] == image_of[right.image]
        for pair in query.pairs:
            if result := results.get(getattr(pair, other)):
                assert pair.score == pytest.approx(result.score, abs=1e-3)
            again = explain_pairs(
                model,
                corpus_items(model, corpus, "image", [image_of[pair.image]]),
                corpus_items(model, corpus, "text", [text_of[pair.text_id]]),
            )[0]
            assert pair.paths == pytest.approx(again.paths, abs=1e-3)
            for word, fresh in zip(pair.words, again.words, strict=True):
                assert word.word == fresh.word and word.share == pytest.approx(fresh.share, abs=1e-3)
                assert word.regions == pytest.approx(fresh.regions, abs=2e-3)
    assert {pair.image for query in stored.queries for pair in query.pairs} == {*stored.files}
    assert stored.files == {id_: (id_, (Path(stored.root) / id_).stat().st_size) for id_ in stored.files}


def test_items_are_those_of_the_checkpoint_with_the_votes_of_their_neighbours(cells: dict[str, Path]) -> None:
    stored, shown = read_explanations(cells["MCRDGN"]), read_examples(cells["MCRDGN"])
    assert stored is not None and shown is not None
    model: Any = itmbench.load(cells["MCRDGN"])
    corpus = corpus_of(cells["MCRDGN"])
    rows = {"image": [*corpus.image_ids], "text": [*corpus.text_ids]}
    queries = {(query.side, query.id): query for query in shown.queries}
    assert len(stored.queries) == 6
    for query in stored.queries:
        kinds = ("image", "text") if query.side == "i2t" else ("text", "image")
        assert [item.modality for item in query.items] == [*kinds]
        assert [item.id for item in query.items] == [query.id, queries[query.side, query.id].results[0].id]
        for item in query.items:
            row = rows[item.modality].index(item.id)
            again = model.explain_items(corpus, corpus_items(model, corpus, item.modality, [row]), SEEN)[0]  # type: ignore[arg-type]
            assert [label.label for label in item.labels] == [label.label for label in again.labels]
            for label, fresh in zip(item.labels, again.labels, strict=True):
                assert (label.predicted, label.received) == pytest.approx((fresh.predicted, fresh.received), abs=1e-3)
                assert [one.id for one in label.sees] == [one.id for one in fresh.sees]
            for one in (*item.sees, *(one for label in item.labels for one in label.sees)):
                row = rows[item.modality].index(one.id)
                image = row if item.modality == "image" else corpus.text_to_image[row]
                assert image in corpus.train
                assert one.labels == [corpus.label_names[label] for label in corpus.labels[image].nonzero()[0]]
                assert item.modality == "text" or one.id in stored.files


def test_a_graph_that_takes_no_part_explains_nothing(cells: dict[str, Path]) -> None:
    shown, model = read_examples(cells["MCRDGN"]), itmbench.load(cells["MCRDGN"])
    assert shown is not None and isinstance(model, MCRDGN)
    corpus = corpus_of(cells["MCRDGN"])
    assert explanations(model, corpus, shown.queries) is not None
    model.choose(0.0)
    assert explanations(model, corpus, shown.queries) is None


def test_files_are_small_and_absent_where_nothing_is_explained(cells: dict[str, Path]) -> None:
    assert not (cells["DualEncoder"] / store.EXPLANATIONS).exists() and read_explanations(cells["DualEncoder"]) is None
    for method in ("SEDRA", "MCRDGN"):
        assert (cells[method] / store.EXPLANATIONS).stat().st_size < 60_000
    assert rounded({"a": 0.123456, "b": [0.123456, {"c": 0.123456}], "d": (1, "x", None)}) == {
        "a": 0.1235,
        "b": [0.123, {"c": 0.1235}],
        "d": [1, "x", None],
    }


class Broken(SEDRA):
    def attended(self, image: Any, text: Any) -> Any:
        raise ZeroDivisionError("of one's own")


def test_a_hook_that_fails_loses_no_cell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "itmbench")
    corpus = ToyData(str(tmp_path)).corpus
    answer = Answer("t224", "112.png", "", 1.0, "own", False, [])
    query = Example("i2t", "112.png", "112.png", "", [], 1, True, [answer])
    found = {}
    for kind, options in ((Broken, {}), (SEDRA, {"paths": ["global"]}), (SEDRA, {})):
        model: Any = kind(8, **options, **toy_encoders())  # type: ignore[arg-type]
        model.adapt(corpus)
        found[kind, *options] = explanations(model, corpus, [query])
    assert [one is None for one in found.values()] == [True, True, False]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "    no explanations: ZeroDivisionError: of one's own"),
        ("INFO", "    no explanations: explain: this SEDRA has no local path to show (paths: global)"),
    ]
