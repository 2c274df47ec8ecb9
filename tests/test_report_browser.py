"""report.html in a real browser: nothing is asked of a network, every chart is drawn, tables sort, tabs switch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmark_results
import pytest

from recbole_lsvcr.benchmark.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or google-chrome on PATH")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    content = benchmark_results.results(portrait=benchmark_results.portrait())
    write_report(json.loads(json.dumps(content)), folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, headless=True, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report at 1280 pixels; at the end there was no error and no request but the one for the file."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    errors: list[str] = []
    requests: list[str] = []
    opened.on("console", lambda message: errors.append(message.text) if message.type != "info" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("request", lambda request: requests.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    opened.close()
    assert errors == [] and requests == [report.as_uri()]


def open_all(page: Any) -> None:
    """Show what tabs and details hide, and go through the page as a reader does."""
    page.evaluate("document.querySelectorAll('details').forEach(some => { some.open = true; })")
    for tab in page.locator("[role=tab]").all():
        tab.click()
        panel = page.locator(f"#{tab.get_attribute('aria-controls')} .chart")
        panel.scroll_into_view_if_needed()
        panel.locator(".main-svg").first.wait_for()
    for chart in page.locator(".chart:visible").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for()


def test_every_chart_is_drawn(page: Any) -> None:
    open_all(page)
    specs = json.loads(page.locator("#charts").text_content())
    assert len(specs) == page.locator(".chart").count() > 25
    drawn = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".chart")].map(chart => [chart.id, {
          svg: chart.querySelectorAll("svg.main-svg").length,
          traces: chart.querySelectorAll(".trace, .heatmaplayer image, .hm").length,
        }]))"""
    )
    for chart in specs:
        # A trace without a point (the seeds of rules, which have one) leaves nothing to draw.
        wanted = sum(bool(trace["type"] == "heatmap" or trace["x"]) for trace in chart["data"])
        found = drawn[chart["id"]]
        assert found["svg"] >= 1 and wanted and found["traces"] >= wanted, (chart["id"], wanted, found)


def column(page: Any, table: Any, place: int) -> list[str | None]:
    """The sort keys of a column from top to bottom; None where there is none."""
    script = """(table, place) => [...table.tBodies[0].rows].map(row => {
      const data = row.cells[place] ? row.cells[place].dataset : {};
      return data.number ?? data.text ?? null;
    })"""
    return list(table.evaluate(script, place))


def test_a_click_on_a_header_sorts(page: Any) -> None:
    table = page.locator("table.sortable").first
    header = table.locator("thead th").nth(4)
    before = column(page, table, 4)
    failed = sum(key is None for key in before)
    assert failed == 2
    known = sorted(float(key) for key in before if key is not None)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    found = column(page, table, 4)
    assert [float(str(key)) for key in found[:-failed]] == known[::-1] and found[-failed:] == [None] * failed
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    found = column(page, table, 4)
    assert [float(str(key)) for key in found[:-failed]] == known and found[-failed:] == [None] * failed
    names = table.locator("thead th").first
    names.locator("button").click()
    assert header.get_attribute("aria-sort") == "none" and names.get_attribute("aria-sort") == "ascending"
    first = [str(key) for key in column(page, table, 0)]
    assert len(first) == 15 and first.index("BERT4Rec") < first.index("LSVCR") < first.index("UniSRec")
    assert table.locator("tfoot tr").count() == 2


def test_protocols_are_chosen_by_tabs(page: Any) -> None:
    tabs = page.locator("[role=tablist]").first.locator("[role=tab]")
    panels = [page.locator(f"#{tab.get_attribute('aria-controls')}") for tab in tabs.all()]
    assert [panel.is_visible() for panel in panels] == [True, False, False, False, False]
    tabs.nth(3).click()
    assert [panel.is_visible() for panel in panels] == [False, False, False, True, False]
    assert "2,246 candidates on average" in panels[3].inner_text()
    assert (
        tabs.nth(3).get_attribute("aria-selected") == "true" and tabs.nth(0).get_attribute("aria-selected") == "false"
    )
    page.keyboard.press("ArrowRight")
    assert panels[4].is_visible() and not panels[3].is_visible()


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_no_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    open_all(page)
    page.wait_for_timeout(300)  # charts follow the width of the window a little later
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """() => [...document.querySelectorAll("main section, header")].filter(some =>
          some.getBoundingClientRect().right > innerWidth + 1).length"""
    )
    assert cut == 0


def test_hostile_names_are_shown_as_text(page: Any) -> None:
    page.evaluate("document.querySelectorAll('.chart').forEach(draw)")
    assert page.locator("main b:has-text('50%')").count() == 0
    assert "</script><script>alert('x')</script>" in page.locator("table.sortable").first.inner_text()
    ticks = page.locator(".chart").first.locator(".ytick text").all_text_contents()
    assert "</script><script>alert('x…" in ticks and "<b>NARM</b>" in ticks
