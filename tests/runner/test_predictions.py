"""``itmbench predict`` writes a feature folder, and says when cosine is not the method's score."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy import ToyData, printed_metrics, toy_arguments

from itmbench.cli.main import main
from itmbench.data.datasets import FeatureFolder
from itmbench.encoders import Embeddings
from itmbench.evaluation import caption_retrieval
from itmbench.methods.scan import SCAN

NOT_COSINE = "SCAN does not score pairs by the cosine of pooled vectors: use itmbench.load"


def metrics(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, float]:
    """What ``itmbench test`` prints."""
    capsys.readouterr()
    assert main(["test", *command]) == 0
    return printed_metrics(capsys.readouterr().out)


def test_vectors_of_label_data_are_a_feature_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = toy_arguments(tmp_path, "--data.labels=true", "--data.copies=2", "--trainer.logger=false")
    assert main(["predict", *options, "--embeddings.folder=out"]) == 0
    assert "does not score" not in capsys.readouterr().out
    corpus, read = ToyData(str(tmp_path / "toy"), labels=True, copies=2).corpus, FeatureFolder(str(tmp_path / "out"))
    ids = (tmp_path / "out" / "image_ids.txt").read_text().split()
    assert sorted(ids) == sorted(corpus.image_ids) and read.corpus.labels is not None and corpus.labels is not None
    assert [*map(list, read.corpus.labels)] == [list(corpus.labels[corpus.image_ids.index(name)]) for name in ids]
    for stage in ("val", "test"):
        for part in ("queries", "gallery"):
            rows = getattr(read.corpus.stages[stage], part)
            expected = getattr(corpus.stages[stage], part)
            assert {ids[row] for row in rows} == {corpus.image_ids[row] for row in expected}

    folder = ["--data=FeatureFolder", f"--data.root={tmp_path / 'out'}", "--model=itmbench.methods.identity.Identity"]
    trainer = [option for option in options if option.startswith("--trainer.")]
    again = metrics(capsys, *folder, *trainer)
    first = metrics(capsys, *options)
    assert {"i2t/mAP", "t2i/mAP", "mAP"} <= set(first) & set(again)
    for name in set(first) & set(again):
        assert again[name] == pytest.approx(first[name], abs=2e-4), name


def test_tokens_are_written_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = toy_arguments(tmp_path, "--trainer.logger=false", model="SCAN")
    for folder, more in (("vectors", []), ("tokens", ["--embeddings.tokens=true"])):
        assert main(["predict", *options, f"--embeddings.folder={folder}", *more]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == NOT_COSINE
    names = {path.name for path in (tmp_path / "vectors").iterdir()}
    assert names == {"images.npy", "texts.npy", "text_to_image.npy", "image_ids.txt", "text_ids.txt"}
    assert {path.name for path in (tmp_path / "tokens").iterdir()} == names | {"image_mask.npy", "text_mask.npy"}
    loaded = {}
    for name in ("image", "text"):
        tokens, mask = np.load(tmp_path / "tokens" / f"{name}s.npy"), np.load(tmp_path / "tokens" / f"{name}_mask.npy")
        assert tokens.shape == (*mask.shape, 32) and mask.any()
        loaded[name] = Embeddings(torch.zeros(len(tokens), 32), torch.from_numpy(tokens), torch.from_numpy(mask))
    owner = np.load(tmp_path / "tokens" / "text_to_image.npy")
    scores = caption_retrieval(loaded["image"], loaded["text"], owner, scorer=SCAN().score)
    tested = metrics(capsys, *options)
    for name in ("i2t/R@1", "t2i/R@5", "rSum"):
        assert scores[name] == pytest.approx(tested[name], abs=1e-3)


def test_a_method_without_tokens_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *toy_arguments(tmp_path), "--embeddings.tokens=true"]) == 2
    assert "DualEncoder has pooled vectors only" in capsys.readouterr().err.splitlines()[-1]
