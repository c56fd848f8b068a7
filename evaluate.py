"""The command ``evaluate.py``; see :mod:`activelabel.evaluate`."""

import sys

from activelabel.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
