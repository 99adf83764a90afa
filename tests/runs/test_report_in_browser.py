"""Opens the report in a real browser, driven by WebDriver's plain JSON over HTTP."""

import base64
import json
import re
import shutil
import subprocess
import urllib.request

import pytest
from matplotlib.figure import Figure

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.cli.main import main

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and shutil.which("chromedriver")),
        reason="needs Chromium and chromedriver (Debian: chromium-driver)",
    ),
]


PORT = re.compile(r"successfully on port (\d+)")
EVIL = "<script>document.title = 1</script>\"'&"


class Browser:
    def __init__(self, url):
        self.url = url

    def send(self, path, method="POST", **body):
        request = urllib.request.Request(
            f"{self.url}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def run(self, script):
        return self.send("/execute/sync", script=f"return {script}", args=[])

    def devtools(self, command, **params):
        return self.send("/goog/cdp/execute", cmd=command, params=params)

    def show(self, width, height, scheme="light", media="screen"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", media=media, features=[feature])
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-sync"),
        "--disable-component-update",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ]
    capabilities = {
        "goog:chromeOptions": {"binary": BROWSER, "args": options},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    with subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
    ) as driver:
        try:
            lines = map(PORT.search, driver.stdout)
            url = f"http://127.0.0.1:{next(filter(None, lines))[1]}/session"
            session = Browser(url).send("", capabilities={"alwaysMatch": capabilities})
            browser = Browser(f"{url}/{session['sessionId']}")
            yield browser
            browser.send("", method="DELETE")
        finally:
            driver.terminate()


def write_run(folder, mixup, seed):
    folder.mkdir(parents=True)
    measures = {"accuracy": 0.5, "loss": 1.0, "ece": 0.1, "nll": 1.0, "brier": 0.3}
    measures |= {f"fgsm_accuracy/{eps}": 0.5 - eps for eps in (0.01, 0.1)}
    measures |= {f"deformed_accuracy/rotation_{a}": 0.4 for a in (20, 40)}
    log = [
        {"epoch": epoch, "main/loss": 2 / epoch}
        | {f"validation/main/{k}": v + seed / 10 for k, v in measures.items()}
        for epoch in (1, 2, 3)
    ]
    (folder / "log").write_text(json.dumps(log))
    arguments = {"model": EVIL, "mixup": mixup, "seed": seed, "epoch": 4}
    record = {"arguments": arguments, "command": f"train {EVIL}"}
    (folder / "run.json").write_text(json.dumps(record))
    bins = {"edges": [0, 0.5, 1], "count": [9, 40]}
    bins |= {"confidence": [0.4, 0.8], "accuracy": [0.5, 0.9]}
    (folder / "reliability.json").write_text(json.dumps(bins))
    figure = Figure()
    figure.add_subplot().plot([1, 2])
    save_figure(figure, folder / "representation.png")


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    for mixup in ("none", "input", f"manifold{EVIL}"):
        for seed in (0, 1):
            write_run(folder / f"runs/{mixup[:4]}{seed}", mixup, seed)
    out = folder / "report.html"
    assert main(["report", str(folder / "runs"), "--out", str(out)]) == 0
    browser.send("/se/log", type="performance")  # forgets how the browser began
    browser.send("/url", url=out.as_uri())
    return browser


def test_nothing_is_loaded_run_or_complained_about(page):
    assert page.run("document.title") == EVIL
    assert page.run("document.scripts.length") == 0
    assert page.send("/se/log", type="browser") == []
    events = [
        json.loads(entry["message"])["message"]
        for entry in page.send("/se/log", type="performance")
    ]
    requests = [e["params"] for e in events if e["method"].endswith("WillBeSent")]
    schemes = [r["request"]["url"].partition(":")[0] for r in requests]
    assert schemes.count("file") == 1
    assert set(schemes) <= {"file", "data"}


def test_images_load_and_figures_are_drawn(page):
    widths = page.run("Array.from(document.images, i => i.naturalWidth)")
    assert len(widths) == 3
    assert all(widths)
    alts = page.run("Array.from(document.images, i => i.alt)")
    assert f"representation.png: mixup=manifold{EVIL}, seed 0" in alts
    sizes = page.run(
        "Array.from(document.querySelectorAll('figure > svg'), "
        "s => [s.getBBox().width, s.querySelectorAll('path').length])"
    )
    assert len(sizes) == 5  # accuracy, loss, FGSM, rotation, reliability
    assert all(width > 100 and n_paths > 5 for width, n_paths in sizes)
    ids = page.run("Array.from(document.querySelectorAll('[id]'), e => e.id)")
    assert len(ids) == len(set(ids))


def test_tables_are_tables(page):
    tables = page.run(
        "Array.from(document.querySelectorAll('table'), t => ({"
        "caption: t.caption.textContent,"
        "columns: Array.from(t.tHead.rows[0].cells, c => c.scope),"
        "rows: Array.from(t.tBodies[0].rows, r => [r.cells.length, r.cells[0].scope])"
        "}))"
    )
    assert len(tables) >= 7
    for table in tables:
        assert table["caption"]
        assert set(table["columns"]) == {"col"}
        assert table["rows"]
        for row in table["rows"]:
            assert row == [len(table["columns"]), "row"]


def test_on_a_telephone_tables_scroll_and_the_page_does_not(page):
    page.show(390, 844)
    assert page.run("innerWidth") == 390
    assert page.run("document.documentElement.scrollWidth") == 390
    boxes = "Array.from(document.querySelectorAll('.scroll'), b => {})"
    assert any(page.run(boxes.format("b.scrollWidth > b.clientWidth")))
    # Text of figures at about the size in which Matplotlib lays it out, or larger.
    text = "document.querySelector('figure svg text').getBoundingClientRect().height"
    assert page.run(text) >= 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_light_and_dark(page, scheme):
    page.show(1280, 900, scheme)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    paper = luminance(page.run(style.format("body", "backgroundColor")))
    assert (paper < 0.2) == (scheme == "dark")
    for what, color in (
        *(("p", "color"), ("a", "color"), ("td", "color"), (".notes", "color")),
        *((".warnings", "color"), ("figure svg text", "fill")),
    ):
        ink = luminance(page.run(style.format(what, color)))
        low, high = sorted((ink, paper))
        assert (high + 0.05) / (low + 0.05) >= 4.5, what


def luminance(color):
    """Relative luminance as WCAG 2 defines it."""
    shares = [int(n) / 255 for n in re.findall(r"\d+", color)[:3]]
    linear = [
        s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares
    ]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_in_print_nothing_is_cut_off(page):
    page.show(700, 900, "dark", media="print")
    style = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.run(style.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert page.run(style.format("nav", "display")) == "none"
    boxes = "Array.from(document.querySelectorAll('table'), t => t.offsetWidth)"
    assert max(page.run(boxes)) <= 700
    pdf = page.devtools("Page.printToPDF")["data"]
    assert base64.b64decode(pdf).startswith(b"%PDF")
