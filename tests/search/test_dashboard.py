"""`optuna-dashboard` opens a search's study as the README says."""

import sys
from pathlib import Path

import pytest
import requests

from tests.search.searches import make_search
from tests.search.servers import running


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_optunas_dashboard_shows_a_search(tmp_path: Path) -> None:
    make_search(tmp_path / "runs" / "s", 4).close()
    program = Path(sys.executable).with_name("optuna-dashboard")
    journal = tmp_path / "runs" / "s" / "study.journal"
    with running(tmp_path, [str(program), "--host=127.0.0.1", str(journal)], "api/studies") as at:
        studies = requests.get(f"{at}/api/studies", timeout=10).json()["study_summaries"]
        (study,) = (found for found in studies if found["study_name"] == "s")
        shown = requests.get(f"{at}/api/studies/{study['study_id']}", timeout=10).json()
    assert [trial["number"] for trial in shown["trials"]] == [0, 1, 2, 3]
