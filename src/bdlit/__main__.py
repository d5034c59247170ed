"""`python -m bdlit` is the `bdlit` command."""

import sys

from bdlit.cli import main

if __name__ == "__main__":
    sys.exit(main())
