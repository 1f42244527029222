"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cells import BASELINE, Cell
from bench.cost import document
from bench.cost.document import Asked
from bench.cost.prediction import Size
from bench.cost.table import read_table
from bench.report import wording
from bench.report.page import page
from bench.report.page.data import by_baseline
from bench.report.table import Value
from bench.runfile.reader import read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Dialog, Locator, Page

    from bench.runfile.reader import Run

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: `apt install chromium`"
)

ROOT = Path(__file__).parents[1]
PATH = ROOT / "results" / "xeon-2-cores" / "2026-11-26-default.json"
HOSTILE = "</script><img src=x onerror=alert(1)>\"' 🦔"
WIDE: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 380, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def run() -> Run:
    return read(PATH)


@pytest.fixture(scope="module")
def file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "run.html"
    path.write_text(page([run]), encoding="utf-8")
    return path


@pytest.fixture
def tab(browser: Browser, file: Path) -> Iterator[Page]:
    """Return a tab with the page; afterwards, it must have said and asked for nothing."""
    context = browser.new_context(viewport=WIDE)
    made = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    made.on("console", lambda message: said.append(message.text))
    made.on("pageerror", lambda error: said.append(str(error)))

    def dismissed(dialog: Dialog) -> None:
        said.append(dialog.message)
        dialog.dismiss()

    made.on("dialog", dismissed)
    made.on("request", lambda request: asked.append(request.url))
    made.goto(file.as_uri())
    made.wait_for_selector("figure svg")
    yield made
    context.close()
    assert said == []
    assert [url for url in asked if not re.match(r"data:|file:.*\.html", url)] == []


def rows(tab: Page) -> list[str]:
    """Return the names of the table's rows, in their order."""
    return tab.locator("#main tbody th").all_inner_texts()


def place(tab: Page, name: str, column: str) -> Locator:
    """Return a cell of the table."""
    row = tab.locator("#main tbody tr").filter(has=tab.locator(f"th:text-is('{name}')"))
    return row.locator(f"td[data-label='{column}']")


def cell(tab: Page, name: str, column: str) -> str:
    """Return what the table says of a row in a column."""
    return place(tab, name, column).inner_text()


def test_the_table_says_what_the_run_says(tab: Page, run: Run) -> None:
    """In the terminal's words, in colour only where there is a finding."""
    seen = set()
    for each in run.section.cells:
        found = each.measured("step")
        if each.workload == "seed" and found and not each.is_baseline:
            value = Value.of(found)
            assert cell(tab, wording.name(each), "step") == f"{value.mark} {value}".strip()
            classes = place(tab, wording.name(each), "step").get_attribute("class") or ""
            assert set(classes.split()) & {"slower", "faster"} == {value.colour} - {""}
            assert ("heat" in classes) == bool(value.colour)
            seen.add(value.colour)
    assert seen == {"", "slower", "faster"}


def test_another_baseline_changes_the_ratios(tab: Page, run: Run) -> None:
    assert "ms" in cell(tab, "pure_jax", "step")
    tab.select_option("#baseline", "haiku")
    assert "ms" in cell(tab, "haiku", "step")
    _, value = by_baseline(run)["haiku"][Cell(*BASELINE, "seed", "cpu")]["step"]
    assert cell(tab, "pure_jax", "step").lstrip("=? ") == str(value)
    assert tab.locator("#caption").inner_text().startswith("ratios to haiku, seed (width 128)")


def test_hide_sort_and_switch(tab: Page) -> None:
    every = rows(tab)
    tab.locator("summary", has_text="Entrants and styles").click()
    tab.get_by_label("flax_nnx", exact=True).uncheck()
    assert rows(tab) == [name for name in every if not name.startswith("flax_nnx")]
    tab.get_by_role("button", name="step", exact=True).click()
    assert tab.locator("th[aria-sort='ascending']").inner_text().startswith("step")
    ascending = rows(tab)
    tab.get_by_role("button", name="step", exact=True).click()
    descending = rows(tab)
    assert descending[0] == ascending[-1] == "flax_linen blog"
    tab.get_by_role("button", name="step", exact=True).click()
    assert rows(tab) == [name for name in every if not name.startswith("flax_nnx")]
    seed = cell(tab, "equinox", "step")
    headers = tab.locator("#main thead th")
    assert "host cost" not in headers.all_inner_texts()  # at seed nobody measures it
    tab.select_option("#workload", "toy")
    assert cell(tab, "equinox", "step") != seed
    assert "host cost" in headers.all_inner_texts()
    tab.select_option("#workload", "all")
    workloads = tab.locator("#workload option").count() - 1
    assert len(rows(tab)) == workloads * len([n for n in every if not n.startswith("flax_nnx")])
    tab.fill("#find", "haiku")
    assert set(rows(tab)) == {"haiku", "haiku transform"}
    tab.get_by_role("button", name="Reset").click()
    assert rows(tab) == every
    tab.get_by_label("pure", exact=True).uncheck()
    assert rows(tab) == [name for name in every if " " in name]


@pytest.mark.slow
def test_the_address_holds_the_state(tab: Page) -> None:
    tab.select_option("#workload", "toy")
    tab.select_option("#baseline", "equinox")
    tab.select_option("#show", "value")
    tab.locator("summary", has_text="Entrants and styles").click()
    tab.get_by_label("haiku", exact=True).uncheck()
    tab.get_by_label("blog", exact=True).uncheck()
    tab.locator("summary", has_text="Columns").click()
    tab.get_by_label("import", exact=True).uncheck()
    tab.get_by_role("button", name="step", exact=True).click()
    shown = tab.locator("#main").inner_text()
    address = tab.url
    assert "workload=toy" in address
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_selector("figure svg")
    assert tab.locator("#main").inner_text() == shown
    assert tab.input_value("#baseline") == "equinox"
    assert not tab.get_by_label("haiku", exact=True).is_checked()
    assert not tab.get_by_label("blog", exact=True).is_checked()
    tab.goto(address.split("#")[0] + "#workload=nowhere&hide=%7B&columns=&base=__proto__&sort=x")
    tab.reload()
    assert tab.input_value("#workload") == "seed"
    assert rows(tab)


@pytest.mark.slow
def test_two_runs_in_one_page_one_of_them_with_hostile_names(
    tab: Page, run: Run, tmp_path: Path
) -> None:
    data = json.loads(PATH.read_text("utf-8"))
    section = data["bakeoff"]
    section["cells"] = [c | {"backend": "gpu"} for c in section["cells"] if c["workload"] == "toy"]
    for each in section["cells"]:
        each["entrant"] = each["entrant"].replace("haiku", HOSTILE)
    (tmp_path / "gpu.json").write_text(json.dumps(data))
    other = read(tmp_path / "gpu.json", samples=False)
    for runs in ([run, other], [other]):  # its text and charts are about the first one
        path = tmp_path / f"{len(runs)}.html"
        path.write_text(page(runs), encoding="utf-8")
        tab.goto(path.as_uri())
        tab.wait_for_selector("figure svg")
        if len(runs) > 1:
            tab.select_option("#baseline", "haiku")
            tab.select_option("#run", label="gpu")
        assert len(rows(tab)) == len(section["cells"])
        assert HOSTILE in rows(tab)
        assert tab.input_value("#baseline") == "pure_jax"
        assert tab.locator("#caption").inner_text().startswith("ratios to pure_jax, toy (width 8)")
        assert tab.locator("img").count() == 0


@pytest.mark.slow
def test_dark_and_light(tab: Page) -> None:
    def colours() -> tuple[str, str]:
        back = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        text = tab.locator("figure svg text").first
        return back, text.get_attribute("fill") or ""

    light = colours()
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(
        "fill => document.querySelector('figure svg text')?.getAttribute('fill') !== fill",
        arg=light[1],
    )
    assert colours()[0] != light[0]


@pytest.mark.slow
def test_a_phone_does_not_scroll_sideways(tab: Page) -> None:
    tab.set_viewport_size(PHONE)
    tab.reload()
    tab.wait_for_selector("figure svg")
    tab.wait_for_timeout(300)
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert cell(tab, "equinox", "step")
    before = rows(tab)
    tab.locator("#main thead button", has_text="Python calls").click()
    assert rows(tab) != before
    cut = tab.evaluate("""() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
        const place = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.width && (box.right > place.right + 1 || box.left < place.left - 1);
        }).map((text) => text.textContent);
    })""")
    assert cut == []


@pytest.mark.slow
def test_the_keyboard_does_everything(tab: Page) -> None:
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(120):
        tab.keyboard.press("Tab")
        reached.add(
            tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
    assert {"workload", "baseline", "show", "find", "reset", "step"} <= reached
    tab.get_by_role("button", name="step", exact=True).focus()
    tab.keyboard.press("Enter")
    assert tab.locator("th[aria-sort='ascending']").inner_text().startswith("step")
    assert tab.evaluate("document.activeElement.textContent") == "step", "the focus stays"
    tab.locator("summary", has_text="Columns").focus()
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    before = tab.locator("#main thead th").count()
    tab.keyboard.press("Space")
    assert tab.locator("#main thead th").count() != before


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(tab: Page, size: Any, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    found = axe.Axe().run(tab).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []


@pytest.mark.slow
def test_printed_it_has_everything(tab: Page) -> None:
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not tab.locator("nav").is_visible()
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 with its margins
    width = "document.querySelector('.scroll').scrollWidth"
    assert tab.evaluate(width) <= tab.evaluate("document.documentElement.clientWidth")
    assert tab.locator("details:not([open])").count() == 0
    assert tab.locator("#main tbody tr").count() > 5


def test_it_is_not_too_long(tab: Page) -> None:
    table = tab.locator(".scroll").first
    assert table.evaluate("each => each.scrollWidth - each.clientWidth") <= 0
    assert tab.evaluate("document.documentElement.scrollHeight") <= 5500
    assert tab.evaluate("document.querySelectorAll('details[open]').length") == 0


def test_costs_follow_what_a_reader_enters(browser: Browser, tmp_path: Path) -> None:
    """In the terminal's words, in its order."""
    costs = read_table()
    path = tmp_path / "cost.html"
    path.write_text(document.page(costs, Asked(Size(100), 0.01), costs.styles), encoding="utf-8")
    context = browser.new_context(viewport=PHONE)
    tab = context.new_page()
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    for arrays, step, host in ((8, 0.001, 1.0), (147, 0.040, 1.0), (500, 0.0004, 1.5)):
        asked = Asked(Size(arrays), step, host)
        tab.get_by_label("parameter arrays").fill(str(arrays))
        tab.get_by_label("milliseconds of a step").fill(f"{step * 1e3:g}")
        tab.get_by_label("Python slower by a factor of").fill(f"{host:g}")
        shown = tab.locator("main table").first.locator("tbody tr")
        [table] = document.document(costs, asked, costs.styles).sections[0].tables
        expected = [[str(cell) for cell in row.cells] for row in table.rows]
        assert [row.locator("th,td").all_inner_texts() for row in shown.all()] == expected
    tab.get_by_label("parameter arrays").fill("-3")
    assert "whole number from 1" in tab.locator("#status").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()
    assert said == []
