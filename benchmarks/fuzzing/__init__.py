"""Fuzzing of every reader of files; :mod:`benchmarks.fuzz` is the command."""

READERS = (
    *("npz", "table", "labels", "export", "oracle", "config", "study"),
    *("reinforce", "ddqn", "moco", "encoder", "weights", "project"),
)
"""Names of the readers, without importing one."""
