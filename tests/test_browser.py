"""In a real browser: the book as it is read, and JupyterLab as a learner uses it. Slow; `make browser` installs what they need."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest
from conftest import ROOT, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CHROMIUM = shutil.which("chromium")
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync""".split()  # noqa: SIM905
CUT = (
    "[...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
)
SHOTS = ROOT / "runs/screenshots"  # to be looked at


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def book() -> Iterator[tuple[str, list[str]]]:
    """The address of the built book, and its pages."""
    out = ROOT / "docs/_build/html"
    done = run([sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", "docs", str(out)], 500)
    assert done.returncode == 0, done.stderr[-3000:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(out)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = [
        str(path.relative_to(out))
        for path in sorted(out.rglob("*.html"))
        if path.name not in ("genindex.html", "search.html")
    ]
    yield f"http://127.0.0.1:{server.server_port}", pages
    server.shutdown()
    server.server_close()


def watched(page: object) -> list[str]:
    """Whatever goes wrong on the page from now on."""
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    return wrong


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1200), ("light", 400)])
def test_book_reads_well(browser, book, scheme: str, width: int) -> None:
    address, pages = book
    assert len(pages) > 25
    page = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}).new_page()
    wrong = watched(page)
    for name in pages:
        page.goto(f"{address}/{name}")
        if page.locator(".math").count():
            page.wait_for_selector("mjx-container svg")
            assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0, name
            assert "\\texttt" not in page.inner_text("article"), name
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, f"{name} is too wide"
        assert page.evaluate(CUT) == [], f"{name}: code or hints are cut"
        shot = SHOTS / f"{scheme}-{width}-{name.replace('/', '-')}.png"
        page.screenshot(path=shot, full_page=True)
    assert wrong == []


def test_book_search(browser, book) -> None:
    page = browser.new_page()
    wrong = watched(page)
    page.goto(f"{book[0]}/search.html?q=design+effect")
    page.wait_for_selector("#search-results li")
    assert page.locator("#search-results li", has_text="Glossary").count()
    assert wrong == []


def test_every_image_and_link_inside_the_book_is_there(book) -> None:
    import re

    out = ROOT / "docs/_build/html"
    for name in book[1]:
        text = (out / name).read_text()
        for target in re.findall(r'(?:href|src)="([^"#?:]+)(?:[#?][^"]*)?"', text):
            assert ((out / name).parent / target).resolve().exists(), f"{name} -> {target}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of the lessons."""
    folder = tmp_path_factory.mktemp("lab")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, folder)
    settings = tmp_path_factory.mktemp("settings")
    (settings / "overrides.json").write_text('{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}')
    with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as free:
        port = free.server_port
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"),
            *(
                "--IdentityProvider.token=",
                f"--ServerApp.root_dir={folder}",
                f"--LabServerApp.app_settings_dir={settings}",
            ),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api")
            break
        except OSError:
            time.sleep(0.25)
    yield address
    process.terminate()
    process.wait(30)


def test_lesson_00_runs_in_jupyterlab_and_its_slider_changes_the_figure(browser, lab: str) -> None:
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"{lab}/lab/tree/00_a_first_surprise.ipynb")
    page.wait_for_selector(".jp-Notebook", timeout=90_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=90_000)
    # The notebook's own mark says idle before there is a kernel: what is run then is lost, on a busy machine.
    page.wait_for_selector("text=/Python 3.* . Idle/", timeout=90_000)
    page.click("text=Run >> nth=0")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")
    slider = page.locator(".widget-slider .noUi-handle").first
    slider.wait_for(timeout=120_000)
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    assert page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.error']").count() == 0
    assert page.locator("text=0.3 not yet").count()
    figure = page.locator(".jupyter-widgets.widget-output img, .widget-interact img").first
    figure.scroll_into_view_if_needed()
    before = figure.get_attribute("src")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    page.wait_for_function(
        "([node, old]) => node.isConnected ? node.src !== old : true",
        arg=[figure.element_handle(), before],
        timeout=30_000,
    )
    page.wait_for_timeout(1500)
    after = page.locator(".jupyter-widgets.widget-output img, .widget-interact img").first.get_attribute("src")
    assert after != before
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / "lab.png")
