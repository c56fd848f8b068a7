"""What the two commands share: errors in one line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TextIO

from activelabel.errors import ActiveLabelError, DuplicateImagesWarning


def run_command(command: Callable[[], None]) -> int:
    """Run a command; returns its exit status: 0, 2 for bad input and 1 for trouble with files (told in one
    line), 130 for an interruption.
    """

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, DuplicateImagesWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            default(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        default = warnings.showwarning
        warnings.showwarning = show
        warnings.simplefilter("always", DuplicateImagesWarning)
        try:
            command()
        except ActiveLabelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1 if isinstance(error, OSError) else 2
        except OSError as error:  # a full disk, a folder that is not ours
            print(f"error: {error}. What was written before stays: mend this, then go on.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return 130
    return 0
