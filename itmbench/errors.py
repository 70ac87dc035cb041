"""The one exception that means "the input is wrong", shown to users as a single line."""


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that says what is wrong, where (file and line, option, id) and what to do.
    The command line prints it without a traceback and exits with 2.
    """
