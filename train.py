"""The command ``train.py``; see :mod:`activelabel.train`."""

import sys

from activelabel.train import main

if __name__ == "__main__":
    sys.exit(main())
