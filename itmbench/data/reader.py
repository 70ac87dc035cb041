"""What a reader is: a plain function from a folder to a Corpus, and the list of what it reads there."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Generic, ParamSpec

from itmbench.data.corpus import Corpus

P = ParamSpec("P")


class Reader(Generic[P]):
    """A reading function; called as the function itself, and able to say which files and folders it depends on.

    Args:
        read: reads a dataset, given its root folder and options.
        inputs: given the same arguments, the existing files that ``read`` would parse and the folders whose
            listing it would use. Whatever can change the Corpus must be among them: the cache watches nothing else.

    Attributes:
        name: the function's full name.
    """

    def __init__(self, read: Callable[P, Corpus], inputs: Callable[..., list[Path]]) -> None:
        functools.update_wrapper(self, read)
        self.read = read
        self.inputs = inputs
        self.name = f"{read.__module__}.{read.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Corpus:
        """The corpus, parsed from disk."""
        return self.read(*args, **kwargs)


def reads(inputs: Callable[..., list[Path]]) -> Callable[[Callable[P, Corpus]], Reader[P]]:
    """Makes a Reader of the function below it: ``@reads(function that lists its inputs)``."""
    return lambda read: Reader(read, inputs)
