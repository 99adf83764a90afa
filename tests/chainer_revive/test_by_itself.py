import ast
from pathlib import Path

import pytest

import chainer_revive

ROOT = Path(chainer_revive.__file__).parent


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: f.stem)
def test_no_import_of_chainer_mmix(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module]
        else:
            continue
        assert not [m for m in modules if m.startswith("chainer_mmix")]


def test_training_without_chainer_mmix(python):
    python("""\
import sys
import chainer_revive
assert "chainer" not in sys.modules
import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
model = L.Classifier(chainer.Sequential(L.Convolution2D(1, 8, 3), F.relu, L.Linear(5)))
optimizer = chainer.optimizers.MomentumSGD(0.1).setup(model)
x, t = np.random.rand(20, 1, 8, 8).astype("f"), np.arange(20) % 5
losses = []
for _ in range(20):
    optimizer.update(model, x, t)
    losses.append(float(model.loss.array))
assert losses[-1] < losses[0]
print(chainer_revive.describe())
assert not [name for name in sys.modules if name.startswith("chainer_mmix")]
""")


OLD = (
    'import os, sys; os.environ.get("CHAINER_MMIX_COMPAT") == "0" or any(getattr(f, '
    '"__name__", "") == "ChainerMmixHook" for f in sys.meta_path) or sys.meta_path.'
    'insert(0, type("ChainerMmixHook", (), {"find_spec": staticmethod(lambda name, '
    'path=None, target=None: __import__("chainer_mmix.backends.compat", None, None, '
    '["find_spec"]).find_spec(name, path, target) if name.partition(".")[0] in '
    '("chainer", "chainercv", "chainermn") else None)}))\n'
)
NEW = (ROOT.parent / "chainer_revive.pth").read_text()
START = """\
import sys
sys.meta_path[:] = [
    f for f in sys.meta_path if getattr(f, "__name__", "") != "ChainerMmixHook"
]
"""
USE = """
from importlib.machinery import SourceFileLoader
loaded = []
load = SourceFileLoader.exec_module
def counted(self, module):
    loaded.append(module.__name__)
    load(self, module)
SourceFileLoader.exec_module = counted
import chainer
assert len(loaded) == len(set(loaded)), sorted(n for n in loaded if loaded.count(n) > 1)
assert loaded.count("chainer") == 1, loaded
assert sys.modules["chainer"] is chainer
import chainer.functions as F, numpy as np
import chainer_mmix
assert chainer_mmix.links.ManifoldMixupClassifier
names = [getattr(f, "__name__", "") for f in sys.meta_path]
assert names.count("ChainerMmixHook") == 1
print(F.relu(np.ones(3, "f")).array.sum(), chainer.__spec__.loader.__class__.__name__)
"""


@pytest.mark.parametrize("lines", [NEW, OLD + NEW, NEW + OLD, OLD])
@pytest.mark.parametrize("first", ["", "import chainer_mmix", "import chainer.links"])
def test_start_up_files_of_two_versions(python, lines, first):
    """The old one alone is what an environment has that was not installed again."""
    code = USE.replace("import chainer\n", f"{first}\nimport chainer\n", 1)
    assert python(START + lines + code) == "3.0 ChainerLoader\n"


@pytest.mark.parametrize("lines", [OLD, ""])
def test_a_checkout_that_was_pulled_and_not_installed_again(python, lines):
    missing = 'sys.modules["chainer_revive"] = None'
    module = "chainer" if lines else "chainer_mmix"
    error = python(f"{START}{missing}\n{lines}import {module}\n", fails=True)
    assert error.rstrip().endswith("in a checkout with 'pip install -e .'")


def test_the_former_names(python):
    code = """\
import numpy as np
from chainer_mmix.backends.cpu import switch
from chainer_mmix.backends import cpu, cudnn
import chainer_revive
for path in ("chainer", "numpy"):
    switch.use(path)
    assert chainer_revive.state()["cpu"] == path
cpu.use("chainer")
cudnn.switch.use(False)
print(cudnn.describe())
"""
    assert "Chainer's own code" in python(code)
