"""Ready embeddings of another model stand in a table beside methods that are trained on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from own_features import write_splits

from itmbench import load_results
from itmbench.cli.main import main
from itmbench.encoders import Embeddings
from itmbench.evaluation import caption_retrieval
from itmbench.report.tables import tables

ITEMS, TEST = 60, 20


def write_clip_like(root: Path, widths: tuple[int, int] = (12, 12)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and texts of one space, two texts an image; images, texts and owners of the test split."""
    generator = np.random.default_rng(0)
    owner = np.repeat(np.arange(ITEMS), 2)
    images = generator.normal(size=(ITEMS, widths[0])).astype(np.float32)
    texts = np.zeros((2 * ITEMS, widths[1]), np.float32)
    texts[:, : min(widths)] = images[owner, : min(widths)]
    texts += generator.normal(scale=0.9, size=texts.shape).astype(np.float32)
    root.mkdir(parents=True)
    for name, array in (("images", images), ("texts", texts), ("text_to_image", owner)):
        np.save(root / f"{name}.npy", array)
    train, test = list(range(ITEMS - TEST)), list(range(ITEMS - TEST, ITEMS))
    write_splits(root, train=train, query=test, gallery=test)
    return images[test], texts[-2 * TEST :], np.repeat(np.arange(TEST), 2)


def test_ready_vectors_stand_beside_trained_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, text, owner = write_clip_like(tmp_path / "data" / "features")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "embeddings"]) == 0
    frame = load_results("results")
    (table,) = tables(frame)
    assert set(table.cells.index) == {"identity", "dual_infonce", "cca"}
    expected = caption_retrieval(Embeddings(torch.from_numpy(image)), Embeddings(torch.from_numpy(text)), owner)
    row = frame.set_index("method").loc["identity"]
    assert 100 < expected["rSum"] < 590
    for key, value in expected.items():
        assert row[key] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("epochs", "widths", "message"),
    [
        (1, (12, 12), "Identity: has no loss to train with; set self.loss or "),
        (0, (12, 9), "Identity: widths 12 and 9 are not of one space"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    tmp_path: Path, epochs: int, widths: tuple[int, int], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip_like(tmp_path / "clip", widths)
    data = ["--data", "FeatureFolder", "--data.root", str(tmp_path / "clip")]
    trainer = ["--trainer.accelerator=cpu", "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", "--model=Identity", *data, *trainer, f"--trainer.max_epochs={epochs}"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
