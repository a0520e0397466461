"""How times are taken, shown and kept: in turn, as medians, in one JSON file."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def interleave(
    variants: Mapping[str, Callable[[], object]], num_rounds: int, num_calls: int = 1
) -> dict[str, float]:
    """Median seconds of a call, each variant timed once a round so that all see the same machine.

    Every variant is called once before, untimed. num_calls: how many calls a timing spans.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        call()
    for _ in range(num_rounds):
        for name, call in variants.items():
            started = time.perf_counter()
            for _ in range(num_calls):
                call()
            times[name].append((time.perf_counter() - started) / num_calls)
    return {name: statistics.median(of_variant) for name, of_variant in times.items()}


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows of the same keys as a table."""
    lines = [list(rows[0]), *([_short(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}")
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def machine() -> dict[str, Any]:
    """What the figures were read on."""
    import torch  # here, since a plain run of the tests reads this file and needs no torch

    info = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (info.read_text().splitlines() if info.is_file() else ())
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
