"""What a run leaves: the schema of a result, the folder of results, the environment of the run."""

from itmbench.store.folder import Merged, cell_folder, commit, load_results, merge, remove, results
from itmbench.store.result import (
    CHECKPOINT,
    CONFIG,
    EXAMPLES,
    EXPLANATIONS,
    LOG,
    PER_QUERY,
    RESULT,
    RUNNING,
    SCHEMA,
    Result,
)

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "EXAMPLES",
    "EXPLANATIONS",
    "LOG",
    "PER_QUERY",
    "RESULT",
    "RUNNING",
    "SCHEMA",
    "Merged",
    "Result",
    "cell_folder",
    "commit",
    "load_results",
    "merge",
    "remove",
    "results",
]
