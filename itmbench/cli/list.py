"""``itmbench list``: methods, datasets and benchmarks, plug-ins included."""

from collections.abc import Sequence
from pathlib import Path

from itmbench.cli.arguments import Parser
from itmbench.runner import registry


def run(command: str, arguments: Sequence[str]) -> int:
    """Print a line for each method, dataset and packaged benchmark."""
    parser = Parser(
        command,
        description="List methods and datasets with their class names, those of other packages included, and the "
        "packaged benchmarks.",
        example="itmbench list",
    )
    parser.parse_args(arguments)
    for group in registry.GROUPS:
        entries = registry.entries(group)
        _print(group, [(entry.name, entry.target.rpartition(":")[2], entry.summary()) for entry in entries])
    _print("benchmarks", [(name, _summary(path)) for name, path in registry.benchmarks().items()])
    print(f"configs of single methods, datasets and encoders: {registry.benchmarks_folder() / 'configs'}")
    return 0


def _print(title: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Rows of texts in columns, the last as long as it is."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    print(f"{title}:")
    for *texts, last in rows:
        padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
        print("  " + "  ".join([*padded, last.replace("``", "")]))


def _summary(path: Path) -> str:
    """The comment in the first line of a benchmark file."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
