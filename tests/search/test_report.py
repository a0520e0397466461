import base64
import hashlib
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from search.page import as_json
from search.pictures import TITLES, Scene, thinned
from search.report import write_report
from search.study import SearchStudy, read_study
from tests.search.searches import HOSTILE, make_search

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SearchStudy:
    study = make_search(tmp_path_factory.mktemp("report") / "runs" / "s", 12)
    study.close()
    return study


def run_report(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "search" / "report.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_report_is_a_page_and_a_png_of_each_picture(study: SearchStudy, tmp_path: Path) -> None:
    page, *stills = write_report(study, tmp_path / "out")
    assert page.name == "report.html"
    drawn = {key for key in TITLES if key not in Scene(study).left_out}
    assert {path.stem for path in stills} == drawn == set(TITLES) - {"sampling"}
    assert all(path.read_bytes().startswith(PNG) for path in stills)


def test_a_periodic_report_is_the_page_alone(study: SearchStudy, tmp_path: Path) -> None:
    assert write_report(study, tmp_path, stills=False) == [tmp_path / "report.html"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_random_stands_beside_sequential_at_equal_settings(tmp_path: Path) -> None:
    one = {"choices": [1.0]}
    study = make_search(
        tmp_path / "s", 8, hidden_size={"choices": [64]}, lr=one, clip_threshold=one
    )
    study.close()
    (pair,) = Scene(study).pairs
    assert pair.params == {"hidden_size": 64, "lr": 1.0, "clip_threshold": 1.0}
    assert (tmp_path / "sampling.png") in write_report(study, tmp_path)


@pytest.mark.parametrize("num_trials", [1, 2, 4])
def test_what_cannot_be_drawn_is_left_out_with_a_reason(tmp_path: Path, num_trials: int) -> None:
    study = make_search(tmp_path / "s", num_trials)
    study.close()
    left_out = Scene(study).left_out
    assert set(left_out) == {"importance", "contour", "slice", "parallel", "sampling"}
    assert "of the 4 trials" in left_out["slice"]
    assert left_out["slice"] in write_report(study, tmp_path, stills=False)[0].read_text()


def test_a_space_of_choices_is_drawn_too(tmp_path: Path) -> None:
    few, some = {"choices": [0.5, 1.0]}, {"choices": [64, 128]}
    study = make_search(tmp_path / "s", 12, hidden_size=some, lr=few, clip_threshold=few)
    study.close()
    assert tmp_path / "contour.png" in write_report(study, tmp_path)


def test_a_space_without_logarithms_is_drawn_too(tmp_path: Path) -> None:
    even = {"low": 0.01, "high": 4.0}
    study = make_search(tmp_path / "s", 8, lr=even, clip_threshold=even)
    study.close()
    assert tmp_path / "contour.png" in write_report(study, tmp_path)


def test_a_search_without_values_still_has_a_page(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 0)
    study.ask()
    study.close()
    assert [path.name for path in write_report(study, tmp_path)] == ["report.html"]


def test_the_page_names_no_address_to_load_from(study: SearchStudy, tmp_path: Path) -> None:
    page = write_report(study, tmp_path, stills=False)[0].read_text()
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=", page.split("<script>")[0])
    assert "default-src 'none'" in page


def test_the_policy_allows_the_two_scripts_of_the_page(study: SearchStudy, tmp_path: Path) -> None:
    page = write_report(study, tmp_path, stills=False)[0].read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert re.findall(r"'sha256-(.*?)'", page.split("<style>")[0]) == digests
    assert len(digests) == 2


def test_hostile_text_cannot_leave_the_data(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 1, text=HOSTILE)
    study.close()
    page = write_report(study, tmp_path, stills=False)[0].read_text()
    assert page.count("</script>") == 3
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert (
        found and HOSTILE[:20] in json.loads(found[1])["wall"]["trials"][0]["texts"]["1"]["text"]
    )


def test_numbers_that_json_lacks_are_null() -> None:
    assert as_json({"a": [float("nan"), float("-inf"), 1.5]}) == '{"a":[null,null,1.5]}'


def test_a_report_can_be_made_in_any_thread(study: SearchStudy, tmp_path: Path) -> None:
    thread = threading.Thread(target=write_report, args=(study, tmp_path))
    thread.start()
    thread.join()
    assert (tmp_path / "curves.png").is_file()


def test_thinning_keeps_the_last() -> None:
    assert thinned(list(range(10)), 3) == [1, 5, 9]
    assert thinned([], 3) == []


def test_a_study_that_is_being_written_can_be_read(tmp_path: Path) -> None:
    study = make_search(tmp_path / "s", 2)
    with study.journal.path.open("ab") as file:
        file.write(b'{"op_code": 8, "user_a')
    before = study.journal.path.read_bytes()
    reader = read_study(tmp_path / "s")
    assert len(reader.trials()) == 2
    with pytest.raises(OSError, match="write"):
        reader.set_attr("a", 1)
    reader.close()
    study.close()
    assert study.journal.path.read_bytes() == before


def test_the_command_prints_where_the_report_lies(study: SearchStudy) -> None:
    root = study.journal.path.parents[2]
    done = run_report("--root", str(root))
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == root / "runs" / "s" / "report" / "report.html"


@pytest.mark.parametrize("args", [[], ["--name", "none"], ["--name", "../s"], ["--nme", "s"]])
def test_wrong_input_is_one_line_and_status_2(tmp_path: Path, args: list[str]) -> None:
    done = run_report("--root", str(tmp_path), *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
