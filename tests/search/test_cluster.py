"""How many trials fit side by side."""

import pytest

from search.cluster import Workers, fitting_workers
from search.config import ConfigError, build_config


def fitting(settings: list[str], **present: float) -> Workers:
    """The workers that a config gets on a machine."""
    return fitting_workers(build_config({}, settings), present)


def test_each_cpu_gets_a_trial() -> None:
    assert fitting([], CPU=8.0) == Workers(8, {"CPU": 1.0})


def test_max_concurrent_bounds_the_workers() -> None:
    assert fitting(["search.max_concurrent=3"], CPU=8.0).count == 3


def test_auto_shares_the_gpus_among_all_cpu_places() -> None:
    assert fitting([], CPU=8.0, GPU=2.0) == Workers(8, {"CPU": 1.0, "GPU": 0.25})
    assert fitting([], CPU=2.0, GPU=4.0) == Workers(2, {"CPU": 1.0, "GPU": 1.0})


def test_a_search_on_the_cpu_claims_no_gpu() -> None:
    assert fitting(["train.device=cpu"], CPU=8.0, GPU=2.0).claim == {"CPU": 1.0}


def test_a_gpu_claim_bounds_the_workers() -> None:
    assert fitting(["search.gpus_per_trial=0.5"], CPU=16.0, GPU=1.0).count == 2


@pytest.mark.parametrize("setting", ["search.cpus_per_trial=3", "search.gpus_per_trial=1"])
def test_a_machine_too_small_for_one_trial_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="one trial must fit"):
        fitting([setting], CPU=2.0)
