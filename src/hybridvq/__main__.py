"""`python -m hybridvq`: the command line."""

import sys

from hybridvq.cli import main

if __name__ == "__main__":
    sys.exit(main())
