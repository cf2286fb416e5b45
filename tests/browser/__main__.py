"""Reports in a browser: ``make report-test``, which wants PyPI's playwright and the system's chromium.

Pages of made documents, with 1 000 nodes and with names that would be markup, are opened as files: nothing may be asked of any
network, nothing complained of, nothing wider than the page. Then they are used as a reader does. Prints what drawing took.
"""

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from miniinfer_cli.report.page import page_of, page_of_two
from tests.report.made import EVIL, comparison, profile, sweep

NODES = 1000
WIDTHS = (360, 800, 1600)
DRAWN_MS = 3000  # at most, for the script of a page with that many nodes


def evil(value: Any) -> Any:
    """The same document, every text in it one that would be markup."""
    match value:
        case str():
            return f"{value}{EVIL}"
        case list():
            return [evil(v) for v in value]
        case dict():
            return {k: v if k in ("kind", "track", "rate", "bound_by") else evil(v) for k, v in value.items()}
    return value


def pages() -> dict[str, str]:
    """The pages by name."""
    return {
        "profile": page_of(profile(12)),
        "large": page_of(profile(NODES)),
        "evil": page_of(evil(profile(12))),
        "sweep": page_of(sweep()),
        "two": page_of_two(profile(12), evil(profile(9))),
        "comparison": page_of(evil(comparison(12))),
        "large comparison": page_of(comparison(NODES)),
    }


@contextmanager
def opened(browser: Browser, file: Path, **options: Any) -> Iterator[Page]:
    """The page of a file; fails where it asks for anything, or complains."""
    complaints: list[str] = []
    context: BrowserContext = browser.new_context(**options)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", lambda asked: complaints.append(f"request: {asked.url}") if not is_own(asked.url, file) else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert complaints == [], f"{file.name}: {complaints}"


def is_own(url: str, file: Path) -> bool:
    """The file itself, or what stands in it."""
    return url.split("#")[0] == file.as_uri() or url.startswith("data:")


def check_every_form(browser: Browser, file: Path) -> None:
    """Light and dark, narrow and wide: no page is wider than the window, and every chart has something on it."""
    for scheme in ("light", "dark"):
        for width in WIDTHS:
            with opened(browser, file, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
                assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{file.name} is wider than {width}"
                for chart in page.query_selector_all("[data-chart] canvas"):
                    assert chart.evaluate(PAINTED), f"{file.name}: an empty chart"
                assert page.evaluate("window.alerted") is None
    with opened(browser, file, java_script_enabled=False) as page:
        assert page.locator("section").count() >= 2


PAINTED = """(canvas) => {
  const drawn = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(drawn.buffer)).size > 3;
}"""


def column(page: Page, table: str, heading: str) -> list[str]:
    """The texts of a column, of rows that are seen."""
    return page.evaluate(
        """([table, heading]) => {
          const of = document.getElementById(table), heads = [...of.tHead.rows[0].cells];
          const n = heads.findIndex((h) => h.textContent === heading);
          return [...of.tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[n].textContent);
        }""",
        [table, heading],
    )


def check_sorting(browser: Browser, file: Path) -> None:
    """The slowest first; each click on a heading turns the order; numbers are numbers."""
    with opened(browser, file) as page:
        times = [float(t) for t in column(page, "nodes", "ms")]
        assert len(times) == NODES and times == sorted(times, reverse=True)
        page.click("#nodes th:has-text('#') button")
        assert column(page, "nodes", "#") == [str(n) for n in range(NODES)]
        page.click("#nodes th:has-text('#') button")
        assert column(page, "nodes", "#")[0] == str(NODES - 1)
        page.click("#nodes th button:text-is('operation')")
        operations = column(page, "nodes", "operation")
        assert operations == sorted(operations, key=str.lower)
        assert page.locator("#nodes th[aria-sort]").count() == 1


def check_filtering(browser: Browser, file: Path) -> None:
    """Words, operations, both; what is left is counted; a link to a hidden row shows it."""
    with opened(browser, file) as page:
        page.fill("#filter", "LAYER99")
        names = column(page, "nodes", "node")
        assert sorted(names) == sorted(f"layer{n}" for n in range(NODES) if str(n).startswith("99"))
        assert page.inner_text("#shown").startswith(f"{len(names)} of {NODES} nodes")
        page.fill("#filter", "layer99 matmul")
        assert set(column(page, "nodes", "operation")) == {"MatMul"}
        page.fill("#filter", "")
        page.select_option("#op", "Reshape")
        assert set(column(page, "nodes", "operation")) == {"Reshape"} and len(column(page, "nodes", "node")) == NODES // 3
        page.click("#graph a[href='#n0']")  # a convolution
        assert len(column(page, "nodes", "node")) == NODES
        page.wait_for_function("document.getElementById('n0').getBoundingClientRect().top < innerHeight")
        assert page.evaluate("document.querySelector('#nodes tr:target').id") == "n0"


def check_graph(browser: Browser, file: Path) -> None:
    """Colours by time and by precision; larger, smaller, as wide as the page."""
    with opened(browser, file) as page:
        fill = "getComputedStyle(document.querySelector('#graph a rect')).fill"
        by_time, width = page.evaluate(fill), page.evaluate("document.getElementById('graph').clientWidth")
        page.click("button[data-by=type]")
        assert page.evaluate(fill) != by_time
        assert page.is_visible(".of-type") and not page.is_visible(".of-time")
        page.click("button[data-by=time]")
        assert page.evaluate(fill) == by_time
        page.click("button[title=Larger]")
        assert abs(page.evaluate("document.getElementById('graph').clientWidth") / width - 1.25) < 0.02
        page.click("button[title^='As wide']")
        assert page.evaluate("graph.clientWidth - graph.parentElement.clientWidth") <= 0
        assert page.locator("#graph a").count() == NODES


def check_print(browser: Browser, file: Path) -> None:
    """On paper everything is there: no navigation, no scrolling."""
    with opened(browser, file) as page:
        page.emulate_media(media="print")
        assert not page.is_visible("nav") and not page.is_visible("#filter")
        assert page.evaluate("[...document.querySelectorAll('.tall')].every((e) => e.scrollHeight <= e.clientHeight + 1)")
        assert page.pdf(format="A4").startswith(b"%PDF")


def check_policy(browser: Browser, file: Path) -> None:
    """No script runs that is not the page's own, and nothing is fetched, even where somebody had got markup into it."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.alerted = 1";
      document.body.append(script);
      document.body.insertAdjacentHTML("beforeend", "<img src='https://example.invalid/x.png' onerror='window.alerted = 2'>");
    }""")
    asked = page.evaluate("fetch('https://example.invalid/').then(() => 'fetched', () => 'refused')")
    page.wait_for_timeout(200)
    assert (asked, page.evaluate("window.alerted")) == ("refused", None)
    context.close()


def main() -> None:
    """Runs all; prints what drawing took."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium: install the package chromium (Debian), which report-test drives")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        # As root, as in a container, chromium runs without its sandbox; it opens nothing but pages of ours.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        files = {}
        for name, text in pages().items():
            files[name] = Path(folder) / f"{name}.html"
            files[name].write_text(text, encoding="utf-8")
        for name, file in files.items():
            with opened(browser, file, viewport={"width": 1280, "height": 900}) as page:
                began = time.perf_counter()
                page.reload()
                whole = (time.perf_counter() - began) * 1e3
                drawn = float(page.evaluate("document.documentElement.dataset.drawnMs"))
                print(f"{name}: {file.stat().st_size / 1e3:.0f} kB, script {drawn:.0f} ms, loaded and drawn {whole:.0f} ms")
                assert drawn < DRAWN_MS
            check_every_form(browser, file)
        for check in (check_sorting, check_filtering, check_graph, check_print, check_policy):
            check(browser, files["large"])
            print(f"{check.__name__}: holds")
        browser.close()


if __name__ == "__main__":
    main()
