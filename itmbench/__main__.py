"""``python -m itmbench``: the same as ``itmbench``."""

from itmbench.cli.main import program

if __name__ == "__main__":
    program()
