"""``itmbench results``: list, show, remove or merge the cells of a results folder."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import fill

from itmbench.cli.arguments import Parser, add_only, add_results_folder

EXAMPLE = """\
itmbench results list --only method=sedra,seed=0
itmbench results show mini/flickr30k-mini/sedra/seed0
itmbench results merge results-of-another-machine"""


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of the four actions; return 1 if cells to merge are in conflict with others, or unsound."""
    parser = Parser(command, description="What a results folder holds, cell by cell.", example=EXAMPLE)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="print a line for each cell")
    add_only(listing, "benchmark=mini,method=scan,seed=0")
    listing.set_defaults(action=list_cells)
    for name, action, summary in (
        ("show", show_cells, "print everything that is recorded of a cell"),
        ("rm", remove_cells, "remove cells without asking"),
    ):
        subparser = actions.add_parser(name, help=summary)
        subparser.add_argument("cells", nargs="+", metavar="CELL", help="its folder as `list` prints it")
        subparser.set_defaults(action=action)
    merge = actions.add_parser("merge", help="add the cells of another results folder; change none here")
    merge.add_argument("other", metavar="DIR", help="the other folder")
    merge.set_defaults(action=merge_results)
    for subparser in actions.choices.values():
        add_results_folder(subparser)
    options = parser.parse_args(arguments)
    return int(options.action(options))


def list_cells(options: argparse.Namespace) -> int:
    """Print a line for each cell: benchmark, dataset, method, seed, objective, end, and folder below the results."""
    import pandas as pd

    from itmbench import store
    from itmbench.report.columns import find
    from itmbench.store.selection import KEYS, select

    cells = list(store.results(options.results))
    folders = {id(result): folder for folder, result in cells}
    rows = []
    for result in select([result for _, result in cells], options.only):
        objective = result.protocol["objective"]
        value = result.metrics[objective]
        shown = next((column.show(value) for _, column in find([objective]).values()), f"{value:.4f}")
        rows.append(
            {
                **{key: getattr(result, key) for key in KEYS},
                "objective": f"{objective} {shown}",
                "finished": result.finished[:16].replace("T", " "),
                "folder": folders[id(result)].relative_to(options.results).as_posix(),
            }
        )
    print(pd.DataFrame(rows).to_string(index=False) if rows else f"{options.results}: no cells")
    return 0


def show_cells(options: argparse.Namespace) -> int:
    """Print everything that is recorded of some cells."""
    import yaml

    from itmbench import store
    from itmbench.report.words import in_words

    for folder in [store.cell_folder(options.results, cell) for cell in options.cells]:
        result = store.Result.load(folder)
        print(folder)
        print(yaml.safe_dump(asdict(result), sort_keys=False, allow_unicode=True), end="")
        print("measured")
        print(fill(in_words(result.protocol, result.inductive), 100, initial_indent="  ", subsequent_indent="  "))
        print("files")
        for path in sorted(folder.iterdir()):
            print(f"  {path.name:<24} {path.stat().st_size:>12,} bytes")
        print()
    return 0


def remove_cells(options: argparse.Namespace) -> int:
    """Remove some cells; if one of them cannot be removed, none is."""
    from itmbench import store

    for folder in store.remove(options.results, options.cells):
        print(f"removed {folder}")
    return 0


def merge_results(options: argparse.Namespace) -> int:
    """Add the cells of another results folder; 1 if one is unsound, or another takes its place."""
    from itmbench import store

    merged = store.merge(options.results, options.other)
    for place in merged.copied:
        print(f"added {place}")
    counts = {"added": merged.copied, "here already": merged.equal, "rerun elsewhere": merged.reruns}
    counts |= {"in conflict": merged.conflicts, "not added": merged.refused}
    print(", ".join(f"{len(cells)} {what}" for what, cells in counts.items()))
    for place, difference in merged.reruns.items():
        print(f"RERUN {place}: other numbers from another environment ({difference}); the result here was kept")
    for place, difference in merged.conflicts.items():
        print(f"CONFLICT {place}: {difference}; nothing was changed, remove one of the two", file=sys.stderr)
    for place, wrong in merged.refused.items():
        print(f"NOT ADDED {place}: {wrong}; run the cell again", file=sys.stderr)
    return 1 if merged.conflicts or merged.refused else 0
