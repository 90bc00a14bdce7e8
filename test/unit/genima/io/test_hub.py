"""Tests of locating pre-trained models: order of the places, and the error if none has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from torch import nn

from genima.errors import GenimaError
from genima.io import hub


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requests to the hub in order; the hub itself is never accessed."""
    sources: list[str] = []

    def model_info(self: HfApi, name: str, timeout: float) -> None:
        sources.append(f"hub {name}")
        if name == "nobody/nothing":
            raise OSError("no route to host\nat all")

    monkeypatch.setattr(HfApi, "model_info", model_info)
    return sources


def test_source_order_is_folder_cache_download(sources: list[str], tmp_path: Path) -> None:
    cached = ["some/cached"]

    def load(name: str, local_files_only: bool = False) -> str:
        sources.append(f"{'cache' if local_files_only else 'load'} {name}")
        if local_files_only and name not in cached:
            raise OSError("not in the cache")
        return f"part {name}"

    for name, expected in (
        (str(tmp_path), [f"load {tmp_path}"]),
        ("some/cached", ["cache some/cached"]),
        ("some/other", ["cache some/other", "hub some/other", "load some/other"]),
    ):
        sources.clear()
        assert hub.load(load, name, "the part", "do without") == f"part {name}"
        assert sources == expected


def test_missing_model_is_one_line_error(sources: list[str], tmp_path: Path) -> None:
    def load(name: str, **_: Any) -> None:
        raise OSError("no such file\nsee there")

    for name, reason in (("nobody/nothing", "no route to host"), (str(tmp_path), "no such file")):
        with pytest.raises(GenimaError) as caught:
            hub.load(load, name, "the part", "do without")
        line = str(caught.value)
        assert "\n" not in line and all(part in line for part in ("the part", name, reason, "or do without"))


def test_fingerprints_distinguish_weights() -> None:
    torch.manual_seed(0)
    net, other = nn.Linear(3, 4), nn.Linear(3, 4)
    assert hub.fingerprint(net) != hub.fingerprint(other)
    other.load_state_dict(net.state_dict())
    assert hub.fingerprint(net) == hub.fingerprint(other)
    assert hub.fingerprint(net, other) != hub.fingerprint(net)
