"""`python -m wholebody`: the command line."""

import sys

from wholebody.cli import main

if __name__ == "__main__":
    sys.exit(main())
