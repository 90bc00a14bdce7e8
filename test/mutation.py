"""Mutations of valid files: a reader must return or raise a GenimaError for any content."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from genima.errors import GenimaError

ALL = "GENIMA_ALL_MUTATIONS"
"""Environment variable that `./genima test --nightly` sets: without it, a fifth of the mutations is made."""

# What users, other programs and broken disks put where a value should be.
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 5, 10**6, 10**20, -(10**20), 10**400, 0.5, -0.0, 1e-300, 1e300,
    float("nan"), float("inf"), float("-inf"), "", " ", "0", "x", "nan", "../../etc/passwd", "/", "a\x00b",
    "\x1b[31mred", "é漢", "{", "{x}", "%s", "x" * 5000, "2024-01-01", [], [[]], [0], [None], ["x"], [1, 2, 3],
    {}, {"x": 1}, {"": None}, [float("nan")] * 3, [[1.0] * 4] * 4,
)  # fmt: skip


def mutated_data(valid: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Yield ``count`` copies of plain data, each with one to three values replaced, removed, added or repeated."""
    rng = random.Random(seed)
    for _ in range(_share(count)):
        data = copy.deepcopy(valid)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            data = _mutate_once(data, rng)
        yield data


def mutated_bytes(valid: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield ``count`` copies of a file's bytes, each cut short, or with bytes flipped, removed, repeated or added."""
    rng = random.Random(seed)
    for _ in range(_share(count)):
        data = bytearray(valid)
        for _ in range(rng.choice((1, 1, 2, 5, 20))):
            start = rng.randrange(len(data) + 1)
            end = min(len(data), start + rng.choice((1, 1, 4, 64, 1000)))
            action = rng.choice(("flip", "flip", "cut", "remove", "repeat", "insert", "zero"))
            if action == "flip" and start < len(data):
                data[start] ^= 1 << rng.randrange(8)
            elif action == "cut" and rng.random() < 0.3:
                del data[start:]
            elif action == "remove":
                del data[start:end]
            elif action == "repeat":
                data[start:start] = data[start:end]
            elif action == "insert":
                data[start:start] = rng.choice((b"\x00", b"\xff", b"{", b"[", b"&a *a", b"!!python/x:y", b"9" * 50))
            elif action == "zero":
                data[start:end] = bytes(end - start)
        yield bytes(data)


def require_clean(read: Callable[[], object], what: object) -> bool:
    """Read a mutated file; return whether it was accepted.

    Raises:
        AssertionError: when the reader raised anything but a GenimaError of one line.
    """
    try:
        read()
    except GenimaError as error:
        assert str(error).strip() and "\n" not in str(error), f"not one line: {error!r}"
        return False
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {str(what)[:2000]}") from error
    return True


def _share(count: int) -> int:
    return count if os.environ.get(ALL) else -(-count // 5)


def _mutate_once(data: Any, rng: random.Random) -> Any:
    places = list(_places(data))
    if not places:
        return copy.deepcopy(rng.choice(STRANGE))
    container, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "remove", "add", "repeat", "scale"))
    if action == "remove":
        del container[key]
    elif action == "add" and isinstance(container, dict):
        container[rng.choice(("x", "", "é", "names"))] = copy.deepcopy(rng.choice(STRANGE))
    elif action == "repeat" and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif action == "scale" and isinstance(container[key], int | float) and not isinstance(container[key], bool):
        container[key] *= rng.choice((-1, 0, 2, 0.5, 1000))
    else:
        container[key] = copy.deepcopy(rng.choice(STRANGE))
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with each of its keys."""
    keys: Any = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    for key in keys:
        yield data, key
        yield from _places(data[key])
