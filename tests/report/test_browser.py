"""The pages in headless Chromium: nothing runs, nothing is fetched, the console is clean."""

import shutil
from pathlib import Path

import pytest

from kdprompt import CallableEmbedder, DistillationSelector, Settings
from kdprompt.evaluate import Cell, summarise
from kdprompt.evaluate.cell import AnsweredPrompt, Latency
from kdprompt.report import write_page, write_phenomena
from kdprompt.reproduce import Phenomenon

HOSTILE = (
    """"'></title></style></pre><script>window.hit = 1</script><img src=x onerror="window.hit = 1">"""
    """<svg onload="window.hit = 1"><a href="javascript:window.hit = 1">go</a>"""
    """<iframe src="https://example.org/x"></iframe><link rel=stylesheet href="https://example.org/y">{{ 7 * 7 }}"""
)
PAGES = ("query", "static", "benchmark", "phenomena")


def find_browser(playwright):
    """Chromium of the system, or playwright's own."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        path = find_browser(playwright)
        if path is None:
            pytest.skip("no Chromium here: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def write_selections(folder):
    examples = [
        {"input": f"{a} and {b} {HOSTILE if b == 2 else ''}", "output": f"odd {HOSTILE}" if a % 2 else "even"}
        for a in range(5)
        for b in range(5)
    ]
    embedder = CallableEmbedder(lambda texts: [[float(t[0]) + 1, float(t[6]) + 0.5, 1.0] for t in texts])
    selector = DistillationSelector.from_examples(examples, embedder, settings=Settings(k=4))
    selector.select(f"3 and 1 {HOSTILE}").to_html(folder / "query.html")
    selector.select_static([f"{a} and 1 {HOSTILE}" for a in range(5)]).to_html(folder / "static.html")


def write_others(folder):
    asked = AnsweredPrompt(query=0, text=HOSTILE, output=HOSTILE, prompt=HOSTILE, answer=HOSTILE, score=0.0)
    numbers = {
        "log_loss": [0.1] * 3,
        "confidence": [0.9] * 3,
        "tokens": [10.0] * 3,
        "shown": [2.0] * 3,
        "draws": [0.66],
    }
    about = {"dataset": HOSTILE, "suite": "clean", "k": 2, "reader": "model", "answered": [asked]}
    score = {"score": [1.0, 0.0, 1.0], "off_task": [0.0] * 3, "calibration_error": 0.1}
    latency = Latency(p50=1, p99=2, prepare=3)
    cells = [Cell(selector=f"{name} {HOSTILE}", latency=latency, **numbers, **about, **score) for name in ("a", "b")]
    write_page(summarise(cells, cells[0].selector, {HOSTILE: HOSTILE}), folder / "benchmark.html")
    phenomenon = Phenomenon(HOSTILE, HOSTILE, HOSTILE, HOSTILE, [1.0, 2.0], [3.0, 4.0], {HOSTILE: 0.12345})
    write_phenomena([phenomenon], folder / "phenomena.html", {HOSTILE: HOSTILE})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    write_selections(folder)
    write_others(folder)
    return folder


@pytest.mark.parametrize("with_policy", [True, False], ids=["policy", "no policy"])
@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_runs_nothing_and_fetches_nothing(name, with_policy, browser, folder):
    """The escaping alone suffices: the policy is a second wall."""
    context = browser.new_context(bypass_csp=not with_policy)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    address = (folder / f"{name}.html").as_uri()
    page.goto(address)
    for closed in page.locator("details").all():
        closed.evaluate("element => { element.open = true }")
    assert (
        page.evaluate("window.hit") is None and page.locator("script, iframe, link, [onerror], [onload]").count() == 0
    )
    assert said == [] and [url for url in asked if not url.startswith("data:")] == [address]
    assert "{{ 7 * 7 }}" in page.inner_text("body")
    context.close()
