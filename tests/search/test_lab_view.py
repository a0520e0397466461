"""The links open MLflow on the answer, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from search.lab_view import default_uri, links, tracking_uri, ui_command
from search.study import SearchStudy
from tests.search.servers import server_arguments, serving
from tests.search.stores import bring, new_store, new_study, run_trial, wait_for


def test_the_config_goes_before_the_environment_and_both_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there:5000")
    assert tracking_uri(None, tmp_path) == "http://there:5000"
    assert tracking_uri("http://here:5000", tmp_path) == "http://here:5000"


def test_mlflow_needs_no_flags_where_the_search_was_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ui_command(default_uri(tmp_path), tmp_path) == "mlflow ui --workers 1"


def test_elsewhere_the_command_says_where_to_go(tmp_path: Path) -> None:
    root = tmp_path / "my runs"
    assert ui_command(default_uri(root), root) == f"cd '{root}' && mlflow ui --workers 1"


def test_a_server_is_its_own_address() -> None:
    assert links("http://there:5000/", "7", "k").table.startswith(
        "http://there:5000/#/experiments/7/"
    )


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Chromium without a window, and without any address but loopback."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed: apt install chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=2600,1200")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    browser = webdriver.Chrome(options, Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SearchStudy]:
    """A search of three trials, brought to the default store."""
    new_store(tmp_path)
    study = new_study(tmp_path)
    for value in (9, 7, 8):
        run_trial(study, value)
    yield study
    study.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.timeout(240)
def test_the_links_show_perplexities_best_first_with_texts_and_all_learning_curves(
    browser: webdriver.Chrome, study: SearchStudy, tmp_path: Path
) -> None:
    found = bring(study, tmp_path).links()
    assert found is not None
    with serving(tmp_path, *server_arguments(tmp_path)) as address:
        browser.get(found.table.replace("http://127.0.0.1:5000", address))
        wait_for(lambda: "sample_text" in body_text(browser), timeout_s=90)
        body = body_text(browser)
        for shown in ("val_perplexity", "hidden_size", "lr", "clip_threshold", "sampling"):
            assert shown in body
        assert "6.2" in body and "time traveller 8" in body and "COMPLETE" in body
        names = [name for name in body.split() if name.startswith("trial-")]
        assert names == ["trial-001", "trial-002", "trial-000"]
        browser.get(found.charts.replace("http://127.0.0.1:5000", address))
        wait_for(lambda: "Model metrics" in body_text(browser), timeout_s=90)
        assert "trial-002" in body_text(browser)


def body_text(browser: webdriver.Chrome) -> str:
    """What a person can read on the page."""
    return browser.find_element(By.TAG_NAME, "body").text
