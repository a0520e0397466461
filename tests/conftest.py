"""What all tests share: quick, repeatable hypothesis runs, one torch thread, the texts."""

import pytest
import torch
from hypothesis import HealthCheck, settings

from data import Corpus, load_corpus

settings.register_profile(
    "repeatable",
    deadline=None,  # the machine may be busy with a search
    derandomize=True,
    database=None,
    max_examples=30,
    # tmp_path is shared by the examples of one test; each writes its files anew.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Sums in one order, and no core taken from a test beside this one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def book() -> Corpus:
    """The Time Machine; tests that need it are skipped where it cannot be had."""
    corpus = load_corpus("timemachine")
    if corpus.notice:
        pytest.skip(corpus.notice)
    return corpus


@pytest.fixture(scope="session")
def bundled() -> Corpus:
    """The text that is shipped with the project."""
    return load_corpus("bundled")
