"""``python -m benchmarks``: see :mod:`benchmarks.table`, a module of its own so that its processes can import it."""

from __future__ import annotations

import tyro

from benchmarks import table

if __name__ == "__main__":
    table.main(tyro.cli(table.Settings, description=table.__doc__))
