"""The report in a real browser, with the network cut off."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from search.report import write_report
from tests.search.searches import HOSTILE, make_search

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")),
        reason="Debian's chromium and chromium-driver are not installed",
    ),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage"
).split()
TRACES = ":is(.scatterlayer, .barlayer, .contourlayer) path"
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium with a new profile, on a report of 12 trials whose text is hostile."""
    folder = tmp_path_factory.mktemp("browser")
    study = make_search(folder / "s", 12, text="time traveller " + HOSTILE)
    study.close()
    page = write_report(study, folder / "report", stills=False)[0]
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, NO_NETWORK, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        driver.get(page.as_uri())
        yield driver
    finally:
        driver.quit()


def count(browser: Any, selector: str) -> int:
    return len(browser.find_elements("css selector", selector))


def click(browser: Any, selector: str) -> None:
    browser.execute_script(f"document.querySelector({selector!r}).click()")


def test_every_picture_is_drawn(browser: Any) -> None:
    for key in ("history", "curves", "importance", "contour", "slice", "parallel"):
        panels = count(browser, f".{key} .panel")
        assert panels == (4 if key == "slice" else 1)
        assert count(browser, f".{key} .panel:not(:has({TRACES}))") == 0


def test_what_is_left_out_is_said(browser: Any) -> None:
    missing = browser.find_element("css selector", ".missing").text
    assert "Random against sequential is left out: no two trials" in missing


def test_the_wall_stands_best_first(browser: Any) -> None:
    click(browser, "#epochs input[value='1']")
    shown = browser.find_elements("css selector", ".card .value")
    values = [float(element.text) for element in shown]
    assert len(values) == 12 and values == sorted(values)


def test_the_wall_filters_by_state(browser: Any) -> None:
    click(browser, "#epochs input[value='1']")
    failed = count(browser, ".card.is-FAIL")
    click(browser, "#states input[value='FAIL']")
    assert (failed, count(browser, ".card.is-FAIL")) == (2, 0)
    assert count(browser, ".card") == 10
    click(browser, "#states input[value='FAIL']")


def test_a_later_epoch_shows_those_that_reached_it(browser: Any) -> None:
    click(browser, "#epochs input[value='4']")
    assert 0 < count(browser, ".card") < 12
    assert "did not get that far" in browser.find_element("id", "count").text


def test_html_in_a_sample_is_shown_and_not_run(browser: Any) -> None:
    assert HOSTILE[:60] in browser.find_element("css selector", ".card .sample").text
    assert browser.title == "s · rnn-search"
    assert count(browser, "#cards script, #cards img, #winner img") == 0


def test_a_phone_scrolls_in_one_direction_only(browser: Any) -> None:
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.refresh()
    assert browser.execute_script("return document.documentElement.scrollWidth") == 400
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_error_is_logged_and_nothing_is_asked_of_a_network(browser: Any) -> None:
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"
    ]
    assert any(url.endswith("/report.html") for url in asked)
    assert not [url for url in asked if url.startswith(("http", "ws"))]
