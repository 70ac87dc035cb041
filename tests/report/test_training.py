import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from results_store import write_store

from itmbench.report.page import page
from itmbench.report.plots import epochs_plot, looks
from itmbench.report.tables import load, tables
from itmbench.report.training import read_epochs

LINE = "2026-11-27 06:41:07      epoch {}/{}  train/loss {:.3f} val/objective {:.3f}  17 s\n"


def test_epochs_are_those_of_the_log(tmp_path: Path) -> None:
    assert read_epochs(tmp_path) == []
    other = "a line that names an epoch\n"
    lines = [LINE.format(1, 3, 2.5, 0.4), LINE.format(2, 3, 2.0, 0.45), other, LINE.format(2, 3, 1.9, 0.5)]
    (tmp_path / "log.txt").write_text(
        "".join(lines) + "2026-11-27 06:41:07      epoch 3/3  val/objective 0.600  18 s\n"
    )
    epochs = read_epochs(tmp_path)
    assert [tuple(epoch) for epoch in epochs[:2]] == [(1, 2.5, 0.4), (2, 1.9, 0.5)]  # the last of those repeated
    assert epochs[2].number == 3 and math.isnan(epochs[2].loss) and epochs[2].objective == 0.6
    (tmp_path / "log.txt").write_bytes(b"\xff epoch 1/2  train/loss much val/objective nan  1 s")
    [damaged] = read_epochs(tmp_path)
    assert math.isnan(damaged.loss) and math.isnan(damaged.objective)


def test_the_page_draws_runs_that_validated_more_than_once(tmp_path: Path) -> None:
    frame = load(write_store(tmp_path))
    assert "epoch by epoch" not in page(tables(frame), tmp_path)
    for folder in frame["folder"]:
        seed = int(folder[-1])
        lines = [LINE.format(epoch, 2, 3 - epoch, 0.1 * epoch + 0.01 * seed) for epoch in (1, 2)]
        Path(folder, "log.txt").write_text("".join(lines))
    shown = tables(frame)
    text = page(shown, tmp_path)
    assert text.count("epoch by epoch") == 2 and text.count("mAP on validation</figcaption>") == 1
    axes = Figure().subplots()
    epochs_plot(axes, shown[1], looks(shown), "objective")
    drawn = [np.asarray(line.get_xydata()) for line in axes.lines]
    expected = [[[1.0, 0.1 + 0.01 * seed], [2.0, 0.2 + 0.01 * seed]] for _ in range(2) for seed in range(3)]
    np.testing.assert_allclose(drawn, expected)
    assert axes.get_legend_handles_labels()[1] == ["dual_infonce", "dual_triplet"]
    assert len({line.get_color() for line in axes.lines}) == 2 and axes.yaxis.get_major_formatter()(0.61) == "61"
