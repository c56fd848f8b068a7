"""The table of ``python -m benchmarks`` has every benchmark that promises something."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path

import pytest

from activelabel.errors import SettingsError
from benchmarks import table
from benchmarks.processes import in_fresh_process


@pytest.mark.parametrize("name", table.QUICK)
def test_the_settings_of_the_table_are_those_of_the_benchmark(name: str) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    module.Settings(**table.QUICK[name])
    assert list(inspect.signature(module.limits).parameters) in (["settings"], ["s"])


def test_every_benchmark_with_limits_is_in_the_table() -> None:
    folder = Path(table.__file__).parent
    promising = {path.stem for path in folder.glob("*.py") if "\ndef limits(" in path.read_text("utf-8")}
    assert promising == set(table.QUICK)


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'startup'"):
        table.main(table.Settings(only=("startap",)))


def of_a_process_of_its_own(number: int) -> tuple[int, int]:
    return os.getpid(), in_fresh_process(abs, number)


def test_a_benchmark_may_start_processes() -> None:
    process, number = in_fresh_process(of_a_process_of_its_own, -3)
    assert process != os.getpid()
    assert number == 3


def test_what_the_machine_can_do_is_measured() -> None:
    assert table.product() > 0
    assert table.bandwidth() > 0
