"""Where trials run: a Ray of the search's own, on loopback, gone when the search ends.

Ray is imported here only once its environment is set, which it reads as it is imported.
"""

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.config import ConfigError, SearchConfig

OBJECT_STORE_BYTES = 128 * 2**20

ENVIRONMENT = {
    # Bind every port to loopback; Linux has no other switch for it.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Tune gives its workers an environment of their own: none that is started before would do.
    "RAY_prestart_worker_first_driver": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class Workers:
    """How many trials run side by side, and what each claims, in Ray's words."""

    count: int
    claim: dict[str, float]


@contextmanager
def started_ray(config: SearchConfig) -> Iterator[Workers]:
    """Start a local Ray, and stop it at the end; gives the workers that fit.

    No dashboard, no usage statistics. Raises ConfigError where not one trial fits.
    """
    os.environ.update(ENVIRONMENT)
    import ray

    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    try:
        yield fitting_workers(config, ray.cluster_resources())  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown()


def fitting_workers(config: SearchConfig, present: dict[str, float]) -> Workers:
    """As many workers as there is room for, at most `search.max_concurrent`.

    present: what the machine has, by Ray's names. `gpus_per_trial: auto` shares the GPUs among
    all CPU places. Raises ConfigError where not one trial fits.
    """
    cpus, gpus = config.search.cpus_per_trial, config.search.gpus_per_trial
    if gpus == "auto":
        places = max(1, int(present.get("CPU", 0) / cpus))
        share = present.get("GPU", 0) / places if config.train.device != "cpu" else 0
        gpus = min(1.0, math.floor(share * 100) / 100)
    claim = {kind: float(amount) for kind, amount in (("CPU", cpus), ("GPU", gpus)) if amount}
    count = min(int(present.get(kind, 0) / amount) for kind, amount in claim.items())
    if count == 0:
        found = {kind: present.get(kind, 0) for kind in claim}
        raise ConfigError(
            f"one trial must fit on this machine, but it needs {claim} and there is {found} "
            f"(search.cpus_per_trial, search.gpus_per_trial)"
        )
    return Workers(min(count, config.search.max_concurrent or count), claim)
