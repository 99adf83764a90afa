"""Runs the Python code of the README and of docs/, and checks their links."""

import re
from pathlib import Path

import chainer
import numpy as np
import pytest
from chainer.dataset import download

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "_dataset_root", str(tmp_path / "cache"))
    np.random.seed(0)
    namespace = {}
    for block in code(page):
        exec(compile(block, str(page), "exec"), namespace)


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
