"""Benchmarks are collected only where they are asked for: pytest tests/benchmarks -m benchmark -s.

Their figures go into one JSON file: $BENCHMARKS_JSON, else one in pytest's temporary folder.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from timing import machine

Figures = dict[str, Any]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder alone unless `-m` names the marker."""
    return None if "benchmark" in str(config.getoption("markexpr")) else True


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Figures]:
    """What the benchmarks found, by name; written when the last one has ended."""
    found: Figures = {"machine": machine()}
    yield found
    default = tmp_path_factory.getbasetemp() / "benchmarks.json"
    path = Path(os.environ.get("BENCHMARKS_JSON", default))
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"\nfigures: {path}")
