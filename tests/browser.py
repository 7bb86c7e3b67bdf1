"""Look through a report as a person would: every category, every figure, table and fit card, in headless Chromium.

python -m tests.browser results/released/report.html
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Frame, Locator, Page, sync_playwright

from tests.debian import install

# What Snakemake's own page says of itself.
EXPECTED = "cdn.tailwindcss.com should not be used in production"


@dataclass
class Seen:
    """What was shown, by category, as (subcategory, labels); the first page's text; and all that went wrong."""

    overview: str = ""
    shown: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Page]:
    """A page in headless Chromium, from Debian; raises `tests.debian.Unavailable` where there is none."""
    install(["chromium"], ["chromium"])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


def look_through(report: Path) -> Seen:
    """Open all that a report holds."""
    with chromium() as page:
        seen = Seen()

        def listen(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and EXPECTED not in message.text:
                seen.faults.append(f"console: {message.text}")

        page.on("console", listen)
        page.on("request", lambda request: seen.faults.extend(_outside(request.url)))
        page.on("requestfailed", lambda request: seen.faults.append(f"request failed: {request.url[:100]}"))
        page.on("pageerror", lambda error: seen.faults.append(f"error: {error}"))
        page.goto(report.resolve().as_uri())
        seen.overview = page.locator(".prose").inner_text()
        categories = page.evaluate("categories")
        for category in sorted(categories):
            seen.shown[category] = []
            subcategories = sorted(categories[category])
            for subcategory in subcategories:
                page.evaluate("app.setView({navbarMode: 'menu'})")  # all categories
                page.get_by_text(category, exact=True).first.click()
                if len(subcategories) > 1:
                    page.get_by_text(subcategory, exact=True).first.click()
                rows = page.locator("table.table-auto tbody tr")
                for row in rows.all():
                    labels = " ".join(row.inner_text().split())
                    row.locator("a").first.click()
                    seen.faults += [f"{category}: {labels}: {fault}" for fault in _faults(page)]
                    seen.shown[category].append((subcategory, labels))
        return seen


def _outside(url: str) -> list[str]:
    return [f"asks for {url}"] if url.startswith(("http:", "https:")) else []


def _faults(page: Page) -> Iterator[str]:
    """What is wrong with the figure or table that is shown."""
    page.wait_for_timeout(50)
    frame = _frame(page)
    if frame is None:
        yield from _broken_pictures(page.locator("img"))
        return
    frame.wait_for_load_state()
    yield from _broken_pictures(frame.locator("img"))
    if not frame.locator("h1").count():
        yield "no page"
    if not frame.locator("img, tbody tr").or_(frame.get_by_text("No rows.")).count():
        yield "neither a figure, nor rows, nor word that there are none"
    if frame.locator("tbody tr").count() > 1:
        head, cells = frame.locator("th").first, frame.locator("table").first.locator("td:first-child")
        before = cells.all_inner_texts()
        head.click()
        head.click()
        after = cells.all_inner_texts()
        if sorted(before) != sorted(after):
            yield "sorting loses rows"
        if len(set(before)) > 1 and head.get_attribute("aria-sort") != "descending":
            yield "a click on a head does not sort"


def _frame(page: Page) -> Frame | None:
    handle = page.locator("iframe")
    element = handle.element_handle() if handle.count() else None
    return element.content_frame() if element else None


def _broken_pictures(pictures: Locator) -> Iterator[str]:
    for picture in pictures.all():
        if not picture.evaluate("picture => picture.complete && picture.naturalWidth > 0"):
            yield "a picture does not show"


def main() -> None:
    seen = look_through(Path(sys.argv[1]))
    print(seen.overview)
    for category, shown in seen.shown.items():
        print(f"\n{category}: {len(shown)}")
        for subcategory, labels in shown:
            print(f"  {subcategory}: {labels}")
    sys.exit("\n".join(seen.faults) or 0)


if __name__ == "__main__":
    main()
