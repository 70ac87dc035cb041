"""Run in a process of its own: two cells as a benchmark runs them, the second of which fails; no key, no network."""

import sys
from pathlib import Path

import pandas as pd
import yaml
from results_store import make_result
from toy import TOY_MODEL

from itmbench import store
from itmbench.runner import tracker
from itmbench.runner.lightning import CellCLI
from itmbench.runner.spec import Cell

CONFIG = """
trainer:
  accelerator: cpu
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 4
  logger: {{class_path: WandbLogger, init_args: {{project: itm, save_dir: {root}}}}}
data: {{class_path: toy.ToyData, init_args: {{root: {root}/toy}}}}
"""


def main(root: Path) -> None:
    config = yaml.safe_load(CONFIG.format(root=root)) | {"model": TOY_MODEL}
    for seed in range(2):
        cell = Cell("sweep", "toy", "dual", seed, config | {"seed_everything": seed})
        cli, folder = CellCLI(cell.config), root / f"seed{seed}"
        folder.mkdir()
        (folder / store.CONFIG).write_text(cli.dump())
        tracker.prepare(cli.config, cell)
        trainer, model = cli.make(folder, [])
        trainer.fit(model, cli.data)
        if seed == 1:
            tracker.abandon()
            continue
        result = make_result("toy", "dual_infonce", seed, {"rSum": 100.0 + seed})
        result.save(folder)
        pd.DataFrame({"rank": [1, 2]}).to_parquet(folder / store.PER_QUERY)
        tracker.publish(trainer, result, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
