"""``python -m itmbench``: the same as ``itmbench``."""

import os
import sys

if sys.path[0] in ("", os.getcwd()) and not os.path.samefile(os.path.dirname(os.path.dirname(__file__)), os.getcwd()):
    del sys.path[0]  # or a numpy.py of the current folder would be taken for numpy

from itmbench.cli.main import program

if __name__ == "__main__":
    program()
