"""Kill a search, anywhere and again and again: it ends as one that nobody disturbed.

`make chaos` runs it longer, with CHAOS_KILLS and CHAOS_SEED in the environment.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.search.processes import (
    SMOKE,
    finish,
    history,
    kill,
    shown,
    start,
    weights,
    worker_ids,
)

KILLS = int(os.environ.get("CHAOS_KILLS", "10"))  # half of drivers, half of workers
SEED = int(os.environ.get("CHAOS_SEED", "0"))
SEARCH = (
    f"--config={SMOKE}",
    "--name=chaos",
    "--trials=6",
    "--set=search.max_concurrent=1",  # one at a time: proposals depend on the history alone
    "--set=search.max_failures=100",
    "--set=train.max_epochs=400",
    "--set=search.pruner={name: successive_halving, min_resource: 25, reduction_factor: 2}",
)


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_search_killed_anywhere_ends_like_one_that_was_not(tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    finish(start(calm, *SEARCH))
    rng = random.Random(SEED)
    kills = {"driver": 0, "worker": 0}
    storms = 0
    while min(kills.values()) < KILLS // 2:
        stormy = tmp_path / f"stormy-{storms}"
        weather(stormy, rng, kills)
        storms += 1
        assert history(stormy / "runs" / "chaos") == history(calm / "runs" / "chaos")
        assert weights(stormy / "runs" / "chaos") == weights(calm / "runs" / "chaos")
        assert shown(stormy) == shown(calm)
    print(f"seed {SEED}: {kills} killed in {storms} searches, all as if nothing had happened")


def weather(root: Path, rng: random.Random, kills: dict[str, int]) -> None:
    """Start a search, kill its driver or its worker, start it again, until it ends by itself.

    Once KILLS are reached, it is let go on in peace.
    """
    journal = root / "runs" / "chaos" / "study.journal"
    while True:
        process = start(root, *SEARCH)
        if min(kills.values()) >= KILLS // 2:
            finish(process)
            return
        if rng.random() < 0.2:
            time.sleep(rng.uniform(0.5, 8.0))  # while it starts
        else:
            for _ in range(rng.randint(1, 2)):
                if not reported(process, journal):
                    break
                time.sleep(rng.uniform(0.0, 0.8))
                if rng.random() < 0.8:
                    kills["worker"] += sum(map(kill, worker_ids(process.pid)))
        if process.poll() is not None:
            finish(process)
            return
        kills["driver"] += kill(process.pid)
        process.communicate()


def reported(process: subprocess.Popen[str], journal: Path) -> bool:
    """Wait for the next report; False where the search ends first."""
    before = journal.stat().st_size if journal.is_file() else 0
    while process.poll() is None:
        if journal.is_file() and journal.stat().st_size > before:
            if b"epochs_" in journal.read_bytes()[before:]:
                return True
        time.sleep(0.05)
    return False
