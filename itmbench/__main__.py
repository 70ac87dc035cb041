"""``python -m itmbench``: the same as ``itmbench``."""

import sys

from itmbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
