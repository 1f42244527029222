"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bench.report.page import page
from bench.report.run import document
from tests.report.runs import Planted, made_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: `apt install chromium`"
)

HOSTILE = "<img src=x onerror=alert(1)>\"' 🦔"
SCREEN: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 390, "height": 800}
STYLES = ("flax_nnx/pure", "flax_nnx/jit", "flax_nnx/jit_partial", "flax_nnx/cached_partial")


@pytest.fixture(scope="module")
def html() -> str:
    """Return the page of a run of the size of a default one."""
    names = (
        *("pure_jax/tuned", "equinox/pure", "equinox/filter_jit", "flax_linen/pure"),
        *("flax_linen/train_state", "flax_linen/blog", *STYLES, "haiku/pure", "haiku/transform"),
        *("stax/pure", f"{HOSTILE}/pure"),
    )
    arms = {
        name: Planted(0.7 + i / 10, 1e-5 * i, 1 + i / 10, {"add": 1}, 3 + i)
        for i, name in enumerate(names)
    }
    warning = "<b>bold</b> </script>"
    run = made_run(arms, ("toy", "seed", "wide"), warnings=[warning], workers=3)
    return page(document(run))


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
    messages: list[str] = []
    requests: list[str] = []
    made.on("console", lambda message: messages.append(message.text))
    made.on("pageerror", lambda error: messages.append(str(error)))
    made.on("dialog", lambda dialog: messages.append(dialog.message))
    made.on("request", lambda request: requests.append(request.url))
    made.goto((tmp_path / "run.html").as_uri())
    yield made
    context.close()
    assert messages == []
    assert [url for url in requests if not re.match(r"data:|file:.*\.html", url)] == []


def names(tab: Page, table: int = 1) -> list[str]:
    return tab.locator("table").nth(table).locator("tbody th").all_inner_texts()


def test_the_page_is_one_file_that_asks_for_nothing(html: str) -> None:
    outside = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert not re.search(r"""(src|href|srcset)=["'](?!#|data:)""", outside)
    assert "default-src 'none'" in html
    assert "url(" not in outside
    assert "NaN" not in outside
    assert len(html.encode()) < 500_000
    order = ["warning", "<table", "What it found", "<picture", "<summary><h2"]
    assert sorted(map(html.index, order)) == [html.index(part) for part in order]


@in_chromium
def test_what_came_from_outside_stays_text(tab: Page) -> None:
    assert HOSTILE in names(tab)
    assert tab.locator("img[src=x]").count() == 0
    assert tab.locator("p.warning b").count() == 0


@in_chromium
def test_columns_sort_by_number_with_mouse_and_keyboard(tab: Page) -> None:
    before = names(tab)
    step = tab.locator("table").nth(1).get_by_role("button", name="step", exact=True)
    step.click()
    ascending = names(tab)
    assert ascending[0] == "pure_jax tuned"
    assert ascending.index("pure_jax") in (3, 4)  # its ratio is 1
    step.focus()
    tab.keyboard.press("Enter")
    assert names(tab) == ascending[::-1]
    assert tab.locator("th[aria-sort='descending']").inner_text().startswith("step")
    tab.keyboard.press("Enter")
    assert names(tab) == before


@in_chromium
def test_it_fits_screens_and_phones(tab: Page) -> None:
    assert tab.evaluate("document.documentElement.scrollHeight") <= 3000
    assert tab.evaluate("document.querySelectorAll('details[open]').length") == 0
    assert all(width > 300 for width in shown_widths(tab))
    tab.set_viewport_size(PHONE)
    tab.reload()
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert all(300 < width < 390 for width in shown_widths(tab))
    table = tab.locator(".scroll").nth(1)
    table.evaluate("part => part.scrollLeft = 200")
    name = table.locator("tbody th").first.bounding_box()
    assert name is not None
    assert name["x"] >= 0, "the names stay in view"


def shown_widths(tab: Page) -> list[int]:
    return tab.evaluate("[...document.images].map(image => image.clientWidth)")


@in_chromium
@pytest.mark.slow
@pytest.mark.parametrize("size", [SCREEN, PHONE], ids=["screen", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(tab: Page, size: Any, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe")
    tab.set_viewport_size(size)
    tab.emulate_media(color_scheme=scheme)
    tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true })")
    violations = axe.Axe().run(tab).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in serious] == []


@in_chromium
@pytest.mark.slow
def test_printed_it_has_everything(tab: Page) -> None:
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    tab.set_viewport_size({"width": 718, "height": 1000})  # A4 with its margins
    width = "document.querySelector('.scroll').scrollWidth"
    assert tab.evaluate(width) <= tab.evaluate("document.documentElement.clientWidth")
    assert tab.locator("details:not([open])").count() == 0
