"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bench.report.documents import make_document
from bench.report.page import page
from tests.report.runs import Planted, made_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: `apt install chromium`"
)

HOSTILE = "<img src=x onerror=alert(1)>\"' 🦔"
SCREEN: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def html() -> str:
    """Return the page of a run of the size of a default one."""
    styles = ("pure", "jit", "jit_partial", "cached_partial")
    names = [
        f"{entrant}/{style}" for entrant in ("equinox", "flax_nnx", "haiku") for style in styles
    ]
    arms = {
        name: Planted(0.7 + i / 10, 1e-5 * i, 1 + i / 10, {"add": 1}, 3 + i)
        for i, name in enumerate(["pure_jax/tuned", *names, f"{HOSTILE}/pure"])
    }
    warnings = ["<b>bold</b> </script>"]
    return page(
        make_document(made_run(arms, ("toy", "seed", "wide"), warnings=warnings, workers=3))
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def tab(browser: Browser, html: str, tmp_path: Path) -> Iterator[Page]:
    """Return a tab with the page; afterwards, it must have said and asked for nothing."""
    (tmp_path / "run.html").write_text(html, encoding="utf-8")
    context = browser.new_context(viewport=SCREEN)
    made = context.new_page()
    said: list[str] = []
    for event in ("console", "pageerror", "dialog"):
        made.on(event, lambda about: said.append(str(about)))
    made.on("request", lambda request: said.append(request.url))
    made.goto((tmp_path / "run.html").as_uri())
    yield made
    context.close()
    assert [text for text in said if not re.match(r"data:|file:.*\.html", text)] == []


def names(tab: Page) -> list[str]:
    return tab.locator("table").first.locator("tbody th").all_inner_texts()


def test_columns_sort_and_what_came_from_outside_stays_text(tab: Page) -> None:
    assert f"{HOSTILE}/pure" in names(tab)
    assert tab.locator("img[src=x], p b").count() == 0
    before = names(tab)
    step = tab.locator("table").first.get_by_role("button", name="step at width 128", exact=True)
    step.click()
    ascending = names(tab)
    assert ascending[0] == "pure_jax/tuned"
    assert ascending.index("pure_jax/pure") in (3, 4)  # its ratio is 1
    step.focus()
    tab.keyboard.press("Enter")
    assert names(tab) == ascending[::-1]
    assert tab.locator("th[aria-sort='descending']").inner_text().startswith("step at width 128")
    tab.keyboard.press("Enter")
    assert names(tab) == before


def test_it_fits_screens_and_phones(tab: Page, html: str) -> None:
    assert "default-src 'none'" in html
    assert len(html.encode()) <= 250_000
    assert tab.evaluate("document.documentElement.scrollHeight") <= 2200
    assert tab.evaluate("document.querySelectorAll('details[open]').length") == 0
    widths = "[...document.images].map(image => image.clientWidth)"
    assert all(width > 300 for width in tab.evaluate(widths))
    tab.set_viewport_size(PHONE)
    tab.reload()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert tab.evaluate("document.documentElement.scrollHeight") <= 5000
    assert all(300 < width < 390 for width in tab.evaluate(widths))
    table = tab.locator(".scroll").first
    table.evaluate("part => part.scrollLeft = 200")
    name = table.locator("tbody th").first.bounding_box()
    assert name is not None
    assert name["x"] >= 0, "the names stay in view"


def test_every_part_has_a_name_and_every_link_leads_to_one(tab: Page) -> None:
    parts = "section:not(:has(> details)), details > div, .scroll, tbody tr, p.line, figure"
    names = tab.evaluate(f"[...document.querySelectorAll('{parts}')].map(part => part.id)")
    assert len(set(names)) == len(names) > 50
    assert "" not in names
    links = tab.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert {link.removeprefix("#") for link in links} <= {*names}
    tab.goto(f"{tab.url}#flax_nnx-jit")
    assert tab.locator("tr:target").inner_text().startswith("flax_nnx/jit")
    assert sum(name.endswith("flax_nnx-jit") for name in names) > 1, "each has its own"
    tab.goto(tab.url.partition("#")[0])
    tab.goto(f"{tab.url}#all-numbers-width-128-on-cpu")
    assert tab.locator("details:has(#all-numbers-width-128-on-cpu)[open]").count() == 1
    box = tab.locator("#all-numbers-width-128-on-cpu").bounding_box()
    assert box is not None
    assert box["y"] < SCREEN["height"], "it is scrolled into view"


def test_a_selection_of_styles_lives_in_the_address(tab: Page) -> None:
    everything = names(tab)
    tab.get_by_role("searchbox").fill("nnx, tuned")
    chosen = [name for name in everything if "nnx" in name or "tuned" in name]
    shown = "[...document.querySelector('tbody').rows].filter(row => !row.hidden).length"
    assert tab.evaluate(shown) == len(chosen)
    address = tab.evaluate("location.href")
    assert address.endswith("#show=nnx%2C+tuned")
    tab.goto("about:blank")
    tab.goto(address)
    assert tab.evaluate(shown) == len(chosen)
    tab.get_by_role("searchbox").fill("")
    assert tab.evaluate(shown) == len(everything)


def test_a_size_lives_in_the_address(tab: Page) -> None:
    heads = tab.locator("table").first.locator("thead th")
    sizes = [name for name in heads.all_inner_texts() if name.startswith("step at")]
    assert [name.split()[-1] for name in sizes] == ["128", "512"]
    tab.get_by_label("Steps at").select_option("width 512")
    assert [heads.filter(has_text=name).is_visible() for name in sizes] == [False, True]
    address = tab.evaluate("location.href")
    assert address.endswith("#size=width+512")
    tab.goto("about:blank")
    tab.goto(address)
    assert [heads.filter(has_text=name).is_visible() for name in sizes] == [False, True]
    cells = tab.locator("table").first.locator("tbody tr").first.locator("td:visible")
    assert cells.count() == heads.count() - 2
    tab.get_by_label("Beside").select_option("equinox/jit")
    assert tab.evaluate("location.hash") == "#size=width+512&base=equinox%2Fjit"
    assert [heads.filter(has_text=name).is_visible() for name in sizes] == [False, True]
    tab.get_by_label("Steps at").select_option("all sizes")
    assert [heads.filter(has_text=name).is_visible() for name in sizes] == [True, True]


def test_any_style_can_be_what_the_others_are_compared_with(tab: Page) -> None:
    def numbers(style: str, column: int) -> list[float]:
        """Return a number, and the ends of its interval; a change in per cent as a ratio."""
        row = tab.locator("table").first.locator("tbody tr").filter(has_text=style).first
        text = row.locator("td").nth(column).inner_text()
        factor = 1e-6 if "µs" in text else 1e-3 if "ms" in text else 1.0
        values = [factor * float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]
        return [1 + value / 100 for value in values] if "%" in text else values

    step, call = 0, 1
    usual = tab.locator("table").first.inner_text()
    before = {style: numbers(style, step) for style in ("equinox/jit", "haiku/pure")}
    added = {style: numbers(style, call) for style in ("equinox/jit", "haiku/pure")}
    tab.get_by_label("Beside").select_option("equinox/jit")
    assert "base=equinox%2Fjit" in tab.evaluate("location.hash")
    base, other = before.values()
    assert numbers("haiku/pure", step) == pytest.approx(
        [other[0] / base[0], other[1] / base[2], other[2] / base[1]], rel=0.01
    )
    base, other = added.values()
    assert numbers("haiku/pure", call)[0] == pytest.approx(other[0] - base[0], rel=0.05)
    [plain, *_] = numbers("pure_jax/pure", step)
    assert plain == pytest.approx(1 / before["equinox/jit"][0], rel=0.01)
    address = tab.evaluate("location.href")
    tab.goto("about:blank")
    tab.goto(address)
    assert tab.get_by_label("Beside").input_value() == "equinox/jit"
    tab.get_by_role("link", name="Surprises").click()
    tab.wait_for_function("location.hash === '#surprises'")
    tab.get_by_role("searchbox").fill("pure")
    assert tab.evaluate("location.hash") == "#show=pure&base=equinox%2Fjit", "nothing is forgotten"
    tab.get_by_role("searchbox").fill("")
    legend = tab.locator("p.line").first
    assert legend.inner_text().startswith("Relative to equinox/jit, with 95")
    tab.get_by_label("Beside").select_option("pure_jax/pure")
    assert legend.inner_text().startswith("Relative to pure_jax/pure, with 95")
    assert tab.locator("table").first.inner_text() == usual
    tab.goto("about:blank")
    tab.goto(address.replace("equinox%2Fjit", "nobody%2Fjit"))
    assert tab.get_by_label("Beside").input_value() == "pure_jax/pure", "it is not on offer"
    assert tab.locator("table").first.inner_text() == usual


def test_beside_another_style_what_is_equal_has_its_mark(browser: Browser, tmp_path: Path) -> None:
    arms = dict.fromkeys(("haiku/pure", "stax/pure"), Planted(1.1, None))
    place = tmp_path / "run.html"
    place.write_text(page(make_document(made_run(arms))), encoding="utf-8")
    tab = browser.new_page()
    tab.goto(f"{place.as_uri()}#base=haiku%2Fpure")
    rows = tab.locator("table").first.locator("tbody tr")
    texts = {
        name: rows.filter(has_text=name).locator("td").first.inner_text()
        for name in ("pure_jax/pure", "stax/pure", "haiku/pure")
    }
    tab.close()
    assert re.fullmatch(r"= [+-]0\.\d % \(-\d\.\d to \d\.\d\)", texts["stax/pure"])
    assert re.match(r"▼ -9\.\d % \(", texts["pure_jax/pure"])
    assert texts["haiku/pure"] == "–"


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [(SCREEN, "light"), (PHONE, "dark")])
def test_axe_finds_nothing_serious(tab: Page, size: Any, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    violations = axe.Axe().run(tab).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []
