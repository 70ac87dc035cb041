"""The exception that means "the input is wrong", shown to users as one line for each thing that is wrong."""

import difflib
import errno
import re
from collections.abc import Callable, Iterable, Sequence


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that says what is wrong, where (file and line, option, id) and what to do.
    The command line prints it without a traceback and exits with 2.
    """


class InputErrors(InputError):
    """Everything that is wrong with an input that is checked to the end before it is refused, one line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = list(lines)


class MissingImages(InputError):
    """Images that a dataset lists are not in its folder; ``names`` are their paths below it."""

    def __init__(self, message: str, names: Sequence[str] = ()) -> None:  # pickle gives the message only
        super().__init__(message)
        self.names = list(names)


def choice(name: str, names: Iterable[str]) -> str:
    """What to give in place of an unknown name.

    >>> choice("SEDRAA", ["SEDRA", "VSE"])
    'did you mean SEDRA? choose one of SEDRA, VSE'
    """
    names = list(names)
    return f"{did_you_mean(name, names)}choose one of {', '.join(names)}"


def letters_of(name: str) -> str:
    """A name in small letters without punctuation, under which spellings of it are equal."""
    return re.sub(r"[\W_]", "", name.casefold())


def did_you_mean(name: str, names: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """Ask for at most two names that resemble an unknown one; empty if none does. Case and punctuation do not matter.

    >>> did_you_mean("MCR-DGN", ["mcr_dgn", "vse"]), did_you_mean("learning_rate", ["dim", "lr"])
    ('did you mean mcr_dgn? ', 'did you mean lr? ')
    >>> did_you_mean("--seed", ["--threads", "--seed_everything"])
    'did you mean --seed_everything? '
    """
    letters = {letters_of(known): known for known in names}
    initials = "".join(part[0] for part in re.split(r"[\W_]+", name.casefold()) if part)
    plain = letters_of(name)
    near = [plain] if plain in letters else [known for known in letters if len(plain) > 2 and known.startswith(plain)]
    near = near[:2] or difflib.get_close_matches(plain, letters, n=2, cutoff=0.7)
    if not near and len(initials) > 1 and initials in letters:
        near = [initials]
    return f"did you mean {' or '.join(shown(letters[each]) for each in near)}? " if near else ""


def in_a_line(error: Exception) -> str:
    """What an error says in one line; of pydantic's the first three problems, by field."""
    if not hasattr(error, "errors"):
        return " ".join(str(error).split()) or type(error).__name__
    problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()[:3]]
    return "; ".join(f"{field or 'file'}: {message}" for field, message in problems)


def is_full(error: Exception) -> bool:
    """Whether an error says that a disk, a quota or a file is full, or fails."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
