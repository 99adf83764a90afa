import json
from html.parser import HTMLParser

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chainer_mmix.analysis.figure import save_figure
from chainer_mmix.cli.main import main

EVIL = "</title><script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Collects the tables, the pictures and the names of all elements."""

    def __init__(self, html):
        super().__init__()
        self.html = html
        self.names, self.tables, self.pictures, self.text = set(), {}, [], None
        self.feed(html)

    def handle_starttag(self, name, attributes):
        self.names.add(name)
        if name == "table":
            self.rows = []
        elif name == "tr":
            self.rows.append([])
        elif name == "img":
            self.pictures.append(dict(attributes))
        elif name in ("caption", "th", "td"):
            self.text = ""

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, name):
        if name == "caption":
            self.caption = self.text
        elif name in ("th", "td"):
            self.rows[-1].append(self.text)
        elif name == "table":
            self.tables[self.caption] = self.rows
        if name in ("caption", "th", "td"):
            self.text = None


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def report(folder):
    def report(*args):
        assert main(["report", *args]) == 0
        return Page((folder / "report.html").read_text(encoding="utf-8"))

    return report


def add_to_log(run, **values):
    log = json.loads((run / "log").read_text())
    log[-1] |= {f"validation/main/{key}": value for key, value in values.items()}
    (run / "log").write_text(json.dumps(log))


def write_mixing(run, layer, counts):
    edges = [i / 20 for i in range(21)]
    lam = {"bin_edges": edges, "counts": counts}
    (run / "mixup.json").write_text(json.dumps({"layer": layer, "lam": lam}))


def test_settings_comparison_and_record(write_run, report, capsys):
    for mixup, finals in (("none", (0.5, 0.6)), ("input", (0.7, 0.9))):
        for seed, final in enumerate(finals):
            run = write_run(f"runs/{mixup}{seed}", (0.3, final), mixup=mixup, seed=seed)
            record = json.loads((run / "run.json").read_text())
            record |= {"command": f"train --seed {seed}", "status": "finished"}
            record |= {"versions": {"python": f"3.1{seed}", "cupy": None}}
            record |= {"revive": {"cpu": "numba", "blas": {"name": "x", "threads": 2}}}
            (run / "run.json").write_text(json.dumps(record))
    page = report("runs")
    assert capsys.readouterr().out == "Report: report.html\n"
    _, first, second = page.tables["Validation, mean ± standard deviation"]
    assert first[:3] == ["mixup=input", "2 (0 1)", "0.8000 ± 0.1414"]
    assert second[0] == "mixup=none"
    (difference,) = [t for c, t in page.tables.items() if c.startswith("Final acc")]
    assert difference[1][:2] == ["mixup=input", "+25.00 ± 5.00"]
    headings = ["argument", "mixup=input", "mixup=none"]
    assert page.tables["What differs"] == [headings, ["mixup", "input", "none"]]
    assert ["model", "cnn"] in page.tables["In all runs"]
    assert ["python", "3.10, 3.11"] in page.tables["Versions"]
    assert ["cpu", "numba"] in page.tables["Versions"]
    assert ["blas", "name x, threads 2"] in page.tables["Versions"]
    folders = [row[:3] for row in page.tables["Runs"][1:]]
    assert folders[1] == ["runs/input1", "1", "finished"]
    assert page.html.count("<code>train --seed 1</code>") == 2
    assert "chainer-mmix report runs --out report.html" in page.html


def test_robustness_calibration_and_mixing_are_shown_where_recorded(write_run, report):
    for seed, value in enumerate((0.25, 0.75)):
        run = write_run(f"runs/{seed}", mixup="input", seed=seed)
        add_to_log(run, ece=value, nll=1.0)
        add_to_log(run, **{"fgsm_accuracy/0.1": value, "fgsm_accuracy/0.03": 0.5})
        add_to_log(run, **{"deformed_accuracy/shear_28.6": value, "spread/l1": 3.0})
        write_mixing(run, {"none": seed, "0": 3 - seed}, [1] * 20)
    page = report("runs")
    spread = "0.5000 ± 0.3536"
    attack = page.tables["Accuracy under attack by FGSM (validation/main)"]
    assert attack[1:] == [["ε = 0.03", "0.5000 ± 0.0000"], ["ε = 0.1", spread]]
    deformed = page.tables["Accuracy on deformed images (validation/main)"]
    assert deformed[1:] == [["shear 28.6", spread]]
    calibration = page.tables["Calibration (validation/main): lower is better"]
    assert calibration[1] == ["expected calibration error", spread]
    assert [row[0] for row in calibration[2:]] == ["negative log-likelihood"]
    mixing = page.tables["Share of the iterations by mixing point"]
    assert mixing[0] == ["setting", "0", "none"]
    assert mixing[1][1:] == ["0.833", "0.167"]
    others = [row[0] for row in page.tables["Last values in the log"][1:]]
    assert others == ["main/loss", "validation/main/spread/l1"]


def test_what_some_runs_have_measured_is_shown(write_run, report):
    for seed in range(3):
        run = write_run(f"runs/{seed}", mixup="input", seed=seed)
        if seed:
            add_to_log(run, ece=seed / 4)
    write_run("runs/none", mixup="none")
    page = report("runs")
    calibration = page.tables["Calibration (validation/main): lower is better"]
    assert calibration[1][1:] == ["0.3750 ± 0.1768 (2 of 3 runs)", "-"]


def test_a_figure_names_only_what_was_measured(write_run, report):
    add_to_log(
        write_run("runs/a", mixup="input"),
        **{"fgsm_accuracy/0.1": 0.5, "fgsm_accuracy/0.2": 0.4},
    )
    write_run("runs/b", mixup="none")
    robustness = report("runs").html.split('id="robustness"')[1].split("</section>")[0]
    legend = robustness.split('class="legend"')[1].split("</ul>")[0]
    assert "mixup=input" in legend and "mixup=none" not in legend


def test_a_value_of_an_earlier_epoch_is_said_to_be_one(write_run, report):
    for seed in (0, 1):
        run = write_run(f"runs/{seed}", (0.3, 0.4, 0.5), mixup="input", seed=seed)
        log = json.loads((run / "log").read_text())
        log[seed]["mixup/loss/0"] = 2.0
        for entry in log:
            entry["lr"] = 0.1
        (run / "log").write_text(json.dumps(log))
    rows = dict(report("runs").tables["Last values in the log"][1:])
    assert rows["mixup/loss/0"] == "2.0000 ± 0.0000 (epochs 1 to 2)"
    assert rows["lr"] == "0.1000 ± 0.0000"


def write_bins(run, count, confidence, accuracy, edges=(0, 0.5, 1)):
    content = {"edges": edges, "count": count}
    content |= {"confidence": confidence, "accuracy": accuracy}
    (run / "reliability.json").write_text(json.dumps(content))


def test_losses_by_point_are_weighted_by_their_iterations(write_run, report):
    for seed, (n, loss) in enumerate(((1, 2.0), (3, 1.0))):
        run = write_run(f"runs/{seed}", mixup="input", seed=seed)
        write_mixing(run, {"0": n, "1": 2, "none": 0}, [1] * 20)
        content = json.loads((run / "mixup.json").read_text())
        content["loss"] = {"0": loss, "1": None}
        (run / "mixup.json").write_text(json.dumps(content))
    rows = report("runs").tables["Mean training loss by mixing point"]
    assert rows[0] == ["setting", "0", "1"]
    assert rows[1][1:] == ["1.2500", "-"]


def test_the_reliability_diagram_is_of_all_runs_of_a_setting(
    write_run, report, monkeypatch
):
    for seed in (0, 1):
        run = write_run(f"runs/none{seed}", mixup="none", seed=seed)
        write_bins(run, [0, 10 + 20 * seed], [None, 0.8], [None, 0.5 + 0.4 * seed])
        write_run(f"runs/input{seed}", mixup="input", seed=seed)  # without bins
    lines = []
    plot = Axes.plot

    def record(axes, x, y, **style):
        lines.append((list(x), list(y)))
        return plot(axes, x, y, **style)

    monkeypatch.setattr(Axes, "plot", record)
    page = report("runs")
    assert 'aria-label="Reliability"' in page.html
    ideal, drawn = lines[-2:]
    assert ideal == ([0, 1], [0, 1])
    # Right are 5 of 10 and 27 of 30.
    assert drawn == ([pytest.approx(0.8)], [pytest.approx(0.8)])
    write_bins(run.parent / "none0", [10] * 3, [0.5] * 3, [0.5] * 3, [0, 0.3, 0.6, 1])
    assert main(["report", "runs"]) == 2


def test_a_bin_with_a_prediction_of_nan_is_left_out(write_run, report):
    run = write_run("run", mixup="none")
    write_bins(run, [10, 20], [0.4, None], [0.5, None])
    assert 'aria-label="Reliability"' in report("run").html


def test_a_log_alone_is_enough(write_run, report):
    write_run("run", record=False)
    page = report("run")
    assert len(page.tables) == 3  # the comparison, other numbers and runs
    assert page.pictures == []


def test_pictures_are_those_of_the_first_run_of_each_setting(write_run, report):
    figure = Figure(figsize=(2, 1), dpi=50)
    for mixup in ("none", "input"):
        for seed in (0, 1):
            run = write_run(f"runs/{mixup}{seed}", mixup=mixup, seed=seed)
            for name in ("spread.png", "loss.png"):
                save_figure(figure, run / name)
    pictures = report("runs").pictures
    assert [picture["alt"] for picture in pictures] == [
        "spread.png: mixup=input, seed 0",
        "spread.png: mixup=none, seed 0",
    ]
    assert (pictures[0]["width"], pictures[0]["height"]) == ("100", "50")


def test_what_a_run_says_is_text_not_html(write_run, report):
    run = write_run("run", model=EVIL, mixup=EVIL, dataset="\ud800 $x$")
    write_mixing(run, {EVIL: 1}, [1] * 20)
    add_to_log(run, **{EVIL: 1.0, "fgsm_accuracy/$": 1.0, "fgsm_accuracy/e": 1.0})
    record = json.loads((run / "run.json").read_text())
    record |= {"command": EVIL, "status": EVIL, "versions": {EVIL: EVIL}}
    (run / "run.json").write_text(json.dumps(record))
    page = report("run")
    assert "script" not in page.names
    assert ["model", EVIL] in page.tables["In all runs"]
    assert [EVIL, EVIL] in page.tables["Versions"]


def test_the_same_runs_give_the_same_page(write_run, report, folder):
    write_run("run")
    report("run")
    before = (folder / "report.html").read_bytes()
    report("run")
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log", b"[{", "run/log is not valid JSON"),
        ("run.json", b"[]", "run/run.json is not the record of a run"),
        ("mixup.json", b"{", "run/mixup.json is not valid JSON"),
        ("mixup.json", b'{"layer": {}, "lam": 1}', "not what MixupReport has written"),
        ("mixup.json", b'{"layer": {}, "loss": 1}', "not what MixupReport has written"),
        (
            "mixup.json",
            b'{"layer": {"0": %d}, "lam": {"bin_edges": [], "counts": []}}' % (10**400),
            "not what MixupReport has written",
        ),
        (
            "reliability.json",
            b'{"edges": [0, 1], "count": [%d], "confidence": [1], "accuracy": [1]}'
            % (10**400),
            "not what CalibrationEvaluator has written",
        ),
        ("reliability.json", b"{", "run/reliability.json is not valid JSON"),
        ("reliability.json", b"[]", "not what CalibrationEvaluator has written"),
        (
            "reliability.json",
            b'{"edges": [0, 1], "count": [2], "confidence": [null], "accuracy": [1]}',
            "not what CalibrationEvaluator has written",
        ),
        ("x.png", b"\x89PNG\r\n\x1a\n", "run/x.png is damaged or no PNG"),
    ],
)
def test_what_is_damaged_is_named_and_nothing_written(
    write_run, folder, capsys, name, content, message
):
    (write_run("run") / name).write_bytes(content)
    (folder / "report.html").write_text("before")
    assert main(["report", "run"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, line = captured.err.replace(str(folder) + "/", "").splitlines()
    assert line.startswith("chainer-mmix report: error: ")
    assert message in line
    assert (folder / "report.html").read_text() == "before"


def test_long_work_shows_progress(write_run, report, capsys, monkeypatch):
    monkeypatch.setattr("chainer_mmix.progress._PATIENCE", 0)
    write_run("run")
    report("run", "--quiet")
    captured = capsys.readouterr()
    assert captured.out == "Report: report.html\n"
    lines = captured.err.splitlines()
    assert lines[0] == "1 of 9: Comparison"
    assert lines[8].startswith("9 of 9: Reproduce, about ")


def test_the_name_of_the_page_is_checked_first(capsys):
    assert main(["report", "nowhere", "--out", "page.pdf"]) == 2
    assert "give a name that ends in .html" in capsys.readouterr().err
