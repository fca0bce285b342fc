"""The book in a real browser, wide and narrow: nothing is fetched from elsewhere, no error, nothing to scroll sideways, every
link leads somewhere, every figure is described, and the search finds what is there."""

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from urllib.parse import urljoin, urlsplit

import pytest

from fedmuscle_core.paths import ROOT

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra [book] is not installed: `make book`")
pytest.importorskip("myst_nb", reason="the extra [book] is not installed: `make book`")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
if not CHROMIUM:
    pytest.skip("no Chromium is installed; the variable CHROMIUM names one", allow_module_level=True)
WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 390, "height": 844}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def site():
    """Address of the built book, served here."""
    done = subprocess.run([sys.executable, ROOT / "docs" / "build.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    handler = functools.partial(Quiet, directory=ROOT / "docs" / "_build" / "html")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(site):
    """Addresses of all pages."""
    html = ROOT / "docs" / "_build" / "html"
    return [urljoin(site, path.relative_to(html).as_posix()) for path in sorted(html.rglob("*.html"))
            if path.name not in ("genindex.html", "search.html") and "_static" not in path.parts]


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_page_is_whole(site, browser, pages, size):
    page, trouble, asked = browser.new_page(viewport=size), [], set()
    page.on("console", lambda message: message.type == "error" and trouble.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"{page.url}: {error}"))
    page.on("request", lambda request: asked.add(request.url))
    page.on("response", lambda answer: answer.status >= 400 and trouble.append(f"{page.url}: {answer.url} {answer.status}"))
    for address in pages:
        page.goto(address, wait_until="load")
        page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise.then(() => true)")
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if over > 0:
            trouble.append(f"{address}: {over} pixels to scroll sideways")
        trouble += [f"{address}: a figure without a description" for image in page.query_selector_all("article img")
                    if not (image.get_attribute("alt") or "").strip()]
        if "$" in page.inner_text("article").replace("US$", "") and page.query_selector("article p:has-text('$$')"):
            trouble.append(f"{address}: an equation that was not set")
    page.close()
    assert not trouble, "\n".join(trouble)
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert len(pages) > 20 and hosts == {urlsplit(site).netloc}


def test_every_link_inside_the_book_leads_to_a_place_that_is_there(site, browser, pages):
    page, places, links = browser.new_page(viewport=WIDE), {}, []
    for address in pages:
        page.goto(address, wait_until="domcontentloaded")
        places[address] = set(page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)"))
        links += [(address, link) for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(one => one.href)")
                  if link.startswith(site)]
    page.close()
    html, lost = ROOT / "docs" / "_build" / "html", []
    for origin, link in links:
        path, _, place = link.removeprefix(site).partition("#")
        file = path.partition("?")[0] or "index.html"
        target = urljoin(site, file)
        if not (html / file).is_file() or place and target in places and place not in places[target]:
            lost.append(f"{origin}: {link}")
    assert len(links) > 500 and not lost, "\n".join(lost[:20])


def test_pages_follow_one_another_and_the_search_finds_alpha(site, browser):
    page = browser.new_page(viewport=WIDE)
    page.goto(urljoin(site, "notebooks/01_muscle_loss.html"))
    assert page.query_selector("a.left-prev") and page.query_selector("a.right-next")
    page.goto(urljoin(site, "search.html?q=alpha"))
    page.wait_for_selector("ul.search li")
    found = page.eval_on_selector_all("ul.search li a", "all => all.map(one => one.textContent)")
    assert any("alpha" in text.lower() for text in found), found
    page.close()


def test_equations_are_set_without_a_network(site, browser):
    page = browser.new_page(viewport=WIDE)
    page.goto(urljoin(site, "notebooks/01_muscle_loss.html"))
    page.wait_for_selector("mjx-container", state="attached")
    assert page.query_selector_all("mjx-container") and "\\sum" not in page.inner_text("article")
    page.close()
