"""Runs the Python code of the README and of docs/, and checks their links."""

import importlib.util
import pydoc
import re
import subprocess
import sys
import zlib
from pathlib import Path

import chainer
import numpy as np
import pytest
from chainer.dataset import download

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "reference").glob("*.md")),
]


def code(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "_dataset_root", str(tmp_path / "cache"))
    np.random.seed(0)
    namespace = {}
    for block in code(page):
        # Of an extra, which a plain installation lacks.
        if "import optuna" not in block or importlib.util.find_spec("optuna"):
            exec(compile(block, str(page), "exec"), namespace)


def test_the_readme_begins_with_the_script_of_the_examples():
    readme = (ROOT / "README.md").read_text().splitlines()
    start, end = [n for n, line in enumerate(readme, 1) if line.startswith("```")][:2]
    assert end <= 43 and len(readme) <= 170
    script = (ROOT / "examples" / "train_mnist.py").read_text().splitlines()
    rest = iter(line.strip() for line in script)
    for line in readme[start : end - 1]:
        assert line.strip() in rest, f"{line!r} is not in examples/train_mnist.py"


@pytest.mark.parametrize(
    "name",
    ["ManifoldMixupClassifier", "MixupLayers", "MixupPolicy", "MixupSequential"],
)
def test_the_reference_has_an_example_of_each_main_name(name):
    page = (ROOT / "docs" / "reference" / "main.md").read_text()
    section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert name in "".join(re.findall(r"^```python\n(.*?)^```", section, re.M | re.S))


def test_the_link_of_the_readme_trains():
    *_, block = code(ROOT / "README.md")
    assert len(list(filter(str.strip, block.splitlines()))) <= 15
    namespace = {}
    exec(block, namespace)
    model = namespace["model"]
    x = np.random.RandomState(0).rand(20, 6).astype(np.float32)
    t = (x.sum(axis=1) > 3).astype(np.int32)
    optimizer = chainer.optimizers.Adam(0.01).setup(model)
    drawn = set()
    for _ in range(150):
        optimizer.update(model, x, t)
        drawn.add(model.draw.layer_mix)
    assert drawn == {0, 1}
    with chainer.using_config("train", False):
        model(x, t)
    assert model.accuracy.array >= 0.9


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def build(source, out, *options):
    pytest.importorskip("sphinx", reason="the extra docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going"]
    command += ["-c", ROOT / "docs", *options, source, out]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_reference_has_every_public_name(tmp_path):
    run = build(ROOT / "docs", tmp_path)
    assert run.returncode == 0, run.stderr
    *_, packed = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)
    lines = zlib.decompress(packed).decode().splitlines()
    documented = [pydoc.locate(line.split()[0]) for line in lines]
    for package in (
        "chainer_mmix",
        "chainer_mmix.datasets",
        "chainer_mmix.links",
        "chainer_mmix.mixing",
        "chainer_mmix.models",
        "chainer_mmix.training",
        "chainer_mmix.training.extensions",
    ):
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            assert any(value is found for found in documented), f"{package}.{name}"


@pytest.mark.parametrize("name", ["chainer_mmix.Nothing", "chainer.links.Nothing"])
def test_a_broken_reference_fails(name, tmp_path):
    page = tmp_path / "page.md"
    for target, fails in (("chainer.links.Linear", False), (name, True)):
        page.write_text(f"# Page\n\n{{class}}`{target}`\n")
        run = build(tmp_path, tmp_path / "out", "-D", "root_doc=page")
        assert (run.returncode != 0) is fails, run.stderr
        assert ("reference target not found" in run.stderr) is fails
