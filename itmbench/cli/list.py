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
        print(f"{group}:")
        for entry in registry.entries(group):
            print(f"  {entry.name:<18} {entry.target.rpartition(':')[2]:<19} {entry.summary()}")
    print("benchmarks:")
    for name, path in registry.benchmarks().items():
        print(f"  {name:<23} {_summary(path)}")
    print(f"configs of single methods, datasets and encoders: {registry.benchmarks_folder() / 'configs'}")
    return 0


def _summary(path: Path) -> str:
    """The comment in the first line of a benchmark file."""
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip()
