"""`python -m tithe` is the command `tithe`."""

import sys

from tithe.cli import main

if __name__ == "__main__":
    sys.exit(main())
