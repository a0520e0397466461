"""A trial keeps its step when it goes on, and says so where it cannot."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import checkpoint_paths, load_checkpoint
from model.native import Unavailable, native_step
from search.config import SearchConfig, build_config
from search.messages import Report, TrialSpec
from search.texts import checked_corpus, training_data
from search.training import Training
from tests.search.trained import VALUES


@pytest.fixture(scope="module", autouse=True)
def _native() -> None:
    reason = native_step()
    if isinstance(reason, Unavailable):
        pytest.skip(str(reason))


def config(step: str) -> SearchConfig:
    return build_config({**VALUES, "train": {**VALUES["train"], "step": step, "max_epochs": 4}})


def make_spec(folder: Path, step: str = "auto") -> TrialSpec:
    """A trial of four epochs that reports after each."""
    params = {"hidden_size": 20, "lr": 1.0, "clip_threshold": 1.0, "sampling": "random"}
    train, metric = config(step).train.model_dump(), "val_perplexity"
    return TrialSpec(0, params, 7, train, metric, frozenset(), folder, report_every_s=0)


def reports(spec: TrialSpec, num: int) -> list[Report]:
    """What the trial reports when it is begun, or gone on with, and stopped after `num` times."""
    step = config(spec.train["step"])
    training = Training(spec, training_data(step, checked_corpus(step)))
    return [training.advance() for _ in range(num)]


def state(folder: Path) -> dict[str, Any]:
    return load_checkpoint(checkpoint_paths(folder)[0]).state


def values(reports: list[Report]) -> list[tuple[Any, ...]]:
    rows = [row for report in reports for row in report.rows]
    return [(row["train_perplexity"], row["val_perplexity"], row["sample_text"]) for row in rows]


def test_a_trial_keeps_the_name_of_its_step(tmp_path: Path) -> None:
    reports(make_spec(tmp_path), 1)
    assert state(tmp_path)["step"] == "native"


def test_a_native_trial_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole = values(reports(make_spec(tmp_path / "whole"), 4))
    spec = make_spec(tmp_path / "stopped")
    begun = values(reports(spec, 2))
    # The first report after a restart brings again what was saved but perhaps never arrived.
    assert begun + values(reports(spec, 3))[1:] == whole


def test_a_trial_that_must_change_its_step_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path / "trial")
    reports(spec, 2)
    monkeypatch.setenv("PATH", str(tmp_path))
    native_step.cache_clear()
    said = [report.notices for report in reports(spec, 2)]
    native_step.cache_clear()
    assert said == [
        [
            "trial 0: using the torch step: there is no compiler 'cc'; "
            "the trial goes on from epoch 2, no longer bit for bit"
        ],
        [],
    ]
    assert state(spec.folder)["step"] == "torch"


def test_a_trial_begun_with_torch_stays_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(tmp_path / "trial")
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        native_step.cache_clear()
        reports(spec, 2)
    native_step.cache_clear()
    assert [report.notices for report in reports(spec, 2)] == [[], []]
    assert state(spec.folder)["step"] == "torch"


@pytest.mark.parametrize(("number", "notices"), [(0, 1), (1, 0)])
def test_a_search_says_once_that_auto_is_torch(
    number: int, notices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    native_step.cache_clear()
    (report,) = reports(replace(make_spec(tmp_path / "trial"), number=number), 1)
    native_step.cache_clear()
    assert len(report.notices) == notices
