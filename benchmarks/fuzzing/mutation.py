"""Changing valid files: their bytes, and what they are made of."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import string
from collections.abc import Callable
from typing import Any

import yaml

from activelabel.reading import DAMAGED

Random = random.Random
NUMBERS = (0, 1, -1, 2, 7, 255, 256, 65535, 10**6, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -(2**63), 2**64, 10**30)
FLOATS = (0.0, -0.0, 0.5, 1.5, -1.0, 1e-320, 1e38, 1e39, 1e300, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    *("", " ", "0", "1", "-1", "1.0", "nan", "inf", "1e999", "9" * 30, "9" * 5000, "None", "NO", "a", "b", "é", "٣"),
    *("\x00", "\n", "\r", "\t", '"', "'", ",", ";", "\ufeff", "\u202e", "😀", "x" * 3000, "=1+1", "../../etc/passwd"),
    *(
        "/dev/zero",
        "~",
        "~nobody",
        "%s",
        "{}",
        "train",
        "val",
        "test",
        "F",
        "M",
        "frontal",
        "AP",
        "2020-01-01",
        "a\x00b",
    ),
)
HALF = "\ud800"


def any_value(rng: Random, depth: int = 0) -> Any:
    """Return something that JSON can write: rarely nested, rarely very deep."""
    kind = rng.randrange(12)
    if kind < 3:
        return rng.choice(NUMBERS) if rng.random() < 0.6 else rng.randint(-20, 300)
    if kind < 5:
        return rng.choice(FLOATS)
    if kind < 8:
        return HALF if rng.random() < 0.03 else rng.choice(TEXTS)
    if kind < 10 or depth > 3:
        return rng.choice((None, True, False))
    if rng.random() < 0.03:
        deep: Any = 1
        for _ in range(rng.choice((20, 60, 300))):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    inside = [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return inside if kind == 10 else {str(rng.choice(TEXTS))[:9]: value for value in inside}


def value_like(rng: Random, before: Any) -> Any:
    """Return another value, half of the time of the same type."""
    if rng.random() < 0.5 or isinstance(before, bool) or before is None:
        return any_value(rng)
    if isinstance(before, int):
        return before + rng.choice((-1, 1, 2)) if rng.random() < 0.5 else rng.choice(NUMBERS)
    if isinstance(before, float):
        return before * rng.choice((-1, 0.5, 2)) if rng.random() < 0.5 else rng.choice(FLOATS)
    return rng.choice(TEXTS) if isinstance(before, str) else any_value(rng)


# -- bytes ------------------------------------------------------------------------------------------------------------


def change_bytes(data: bytes, rng: Random, tokens: tuple[bytes, ...] = ()) -> bytes:
    """Return bytes that differ in a few places."""
    raw = bytearray(data)
    for _ in range(1 + int(rng.expovariate(0.7))):
        place, kind = rng.randrange(len(raw) + 1), rng.randrange(9)
        length = min(1 + int(rng.expovariate(0.1)), 4096)
        if kind == 0 and raw:
            raw[place % len(raw)] ^= 1 << rng.randrange(8)
        elif kind == 1 and raw:
            raw[place % len(raw)] = rng.choice((0, 1, 9, 10, 34, 44, 127, 128, 255, rng.randrange(256)))
        elif kind == 2:
            del raw[place : place + length]
        elif kind == 3:
            raw[place:place] = raw[place : place + length]
        elif kind == 4:
            raw[place:place] = rng.randbytes(min(length, 64))
        elif kind == 5:
            size = rng.choice((2, 4, 8))
            raw[place : place + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, rng.choice(("little", "big")))
        elif kind == 6:
            del raw[place:]
        elif kind == 7 and tokens:
            raw[place:place] = rng.choice(tokens)
        else:
            other = rng.randrange(len(raw) + 1)
            raw[place : place + length] = raw[other : other + length]
    return bytes(raw)


# -- trees of dicts and lists ------------------------------------------------------------------------------------------


def change_tree(tree: Any, rng: Random, value: Callable[[Random, Any], Any]) -> Any:
    """Return a copy of a tree with one or a few nodes replaced, removed, doubled, renamed, or swapped."""
    tree = _copied(tree)
    for _ in range(1 + int(rng.expovariate(1.2))):
        places = [(holder, key) for holder in _holders(tree) for key in _keys(holder)]
        if not places:
            return value(rng, tree)
        holder, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind < 5:
            holder[key] = value(rng, holder[key])
        elif kind == 5:
            del holder[key]
        elif kind == 6:
            other, there = rng.choice(places)
            holder[key] = _copied(other[there]) if len(places) < 2000 else None
        elif kind == 7 and isinstance(holder, dict):
            holder[rng.choice((*holder, *TEXTS))] = holder.pop(key)
        elif kind == 8 and isinstance(holder, list):
            holder[key:key] = [_copied(holder[key])] * rng.choice((1, 2, 50))
        else:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
    return tree


_DEEPEST = 300
"""Levels of a tree that are copied: Python's own stack ends at a thousand calls."""


def _copied(tree: Any, depth: int = 0) -> Any:
    if depth == _DEEPEST:
        return None
    if isinstance(tree, dict):
        return {key: _copied(value, depth + 1) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_copied(value, depth + 1) for value in tree]
    return tree


def _holders(tree: Any) -> list[Any]:
    found: list[Any] = []
    waiting = [tree]
    while waiting and len(found) < 3000:
        node = waiting.pop()
        if isinstance(node, (dict, list)):
            found.append(node)
            waiting += node.values() if isinstance(node, dict) else node
    return found


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


# -- text formats ------------------------------------------------------------------------------------------------------

YAML_TOKENS = tuple(
    token.encode()
    for token in (
        *(
            "&a ",
            "*a",
            "*a,*a,*a",
            "<<: *a\n",
            "!!python/object/apply:os.system [id]",
            "!!int ",
            "!!float ",
            "!!binary ",
        ),
        *(
            "!!timestamp ",
            "!!set ",
            "!!omap ",
            "!!str ",
            "!!null ",
            "? ",
            ": ",
            "- ",
            "| ",
            "> ",
            "%YAML 1.1\n",
            "---\n",
        ),
        *(
            "...\n",
            "[",
            "]",
            "{",
            "}",
            "\t",
            "0x" + "f" * 5000,
            "9" * 5000,
            "1:1:1:1",
            "2020-99-99",
            ".nan",
            ".inf",
            "~",
        ),
        *('"\\ud800"', '"\\x00"', "[" * 400, "{a: " * 200, "- " * 300, "# x\n", "'", '"', "\u2028", "=", "NO", "1e400"),
        *("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "&x [*x]", "? [a]\n: b\n"),
    )
)


def yaml_bomb(rng: Random) -> bytes:
    """Return a few lines that stand for very many values."""
    letters = string.ascii_lowercase[: rng.randint(3, 26)]
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    merge = rng.random() < 0.3
    for before, letter in itertools.pairwise(letters):
        inside = ",".join([f"*{before}"] * 9)
        lines.append(f"{letter}: &{letter} " + (f"{{<<: [{inside}], {letter}: 1}}" if merge else f"[{inside}]"))
    if merge:
        lines[0] = "a: &a {x: 1, y: 2}"
    return "\n".join([*lines, rng.choice(("env: *", "grids: *", "data: *", "seed: *", "q: *")) + letters[-1]]).encode()


def change_yaml(data: bytes, rng: Random) -> bytes:
    """Return a changed YAML file."""
    kind = rng.random()
    if kind < 0.02:
        return yaml_bomb(rng)
    if kind < 0.3 or b"*" in data:  # aliases may be a bomb, and this program is no safer than PyYAML
        return change_bytes(data, rng, YAML_TOKENS)
    try:
        tree = json.loads(data) if data[:1] == b"{" else yaml.safe_load(data)
    except (*DAMAGED, yaml.YAMLError):
        return change_bytes(data, rng, YAML_TOKENS)
    # JSON is YAML, and much faster to write.
    return json.dumps(change_tree(tree, rng, value_like)).encode()


def change_json(data: bytes, rng: Random) -> bytes:
    """Return a changed JSON file."""
    if rng.random() < 0.3:
        return change_bytes(
            data, rng, (b"[" * 2000, b"1e999", b"NaN", b"9" * 5000, b'"\\ud800"', b'{"a":' * 500, b"\xff")
        )
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(data, rng)
    return json.dumps(change_tree(tree, rng, value_like), ensure_ascii=rng.random() < 0.5).encode(
        "utf-8", "surrogatepass"
    )


def change_csv(data: bytes, rng: Random) -> bytes:
    """Return a changed CSV file."""
    if rng.random() < 0.25:
        return change_bytes(
            data, rng, (b'"', b",", b"\r\n", b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"x" * 140000, b";")
        )
    text = data.decode("utf-8-sig", "replace").replace("\x00", "")
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error:
        return change_bytes(data, rng)
    for _ in range(1 + int(rng.expovariate(0.8))):
        if not rows or not all(rows):
            break
        row, kind = rng.randrange(len(rows)), rng.randrange(12)
        column = rng.randrange(len(rows[row]))
        if kind < 6:
            rows[row][column] = str(any_value(rng)) if rng.random() < 0.7 else rng.choice(rng.choice(rows))
        elif kind == 6:
            del rows[row]
        elif kind == 7:
            rows[row:row] = [list(rows[row])] * rng.choice((1, 2, 300))
        elif kind == 8:
            for each in rows:
                del each[column : column + 1]
        elif kind == 9:
            for each in rows:
                each.append(rng.choice(TEXTS)[:100])
        elif kind == 10:
            rows[row] = rows[row][: rng.randrange(len(rows[row]) + 1)] or [""]
        else:
            rng.shuffle(rows)
    stream = io.StringIO()
    mark = ";" if rng.random() < 0.03 else ","
    writer = csv.writer(stream, delimiter=mark, lineterminator=rng.choice(("\n", "\r\n")))
    try:
        writer.writerows(rows)
    except csv.Error:  # Python 3.10 writes no NUL
        return change_bytes(data, rng)
    coding = rng.choice(("utf-8-sig", "utf-16", "latin-1")) if rng.random() < 0.1 else "utf-8"
    return stream.getvalue().encode(coding, "replace")
