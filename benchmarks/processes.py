"""Processes of their own for what is measured."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_fresh_process(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Return what a function returns in a new process, which may start others.

    What was measured before is not in its memory, and its memory is not in that of what is measured next.

    Parameters
    ----------
    function: what a new process can import.
    *arguments, **named: what it is called with.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments, **named).result()
