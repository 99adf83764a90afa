"""``nox`` runs ``make test`` on every supported Python.

``nox -s packages`` tries the packages around Chainer, one environment each.
"""

import nox

nox.options.sessions = ["test"]

# What pip needs to be told to install each, on top of this project.
PACKAGES = {
    "chainer-addons": (
        "--no-deps chainer-addons==0.10.0 cvargparse pyaml PyYAML simplejson tabulate "
        "tqdm"
    ),
    "chainer-chemistry": "chainer-chemistry==0.7.1 rdkit",
    "chainer-computational-cost": "chainer-computational-cost==0.1.2",
    "chainer-mask-rcnn": "chainer-mask-rcnn==0.5.24 opencv-python-headless",
    "chainercv2": "chainercv2==0.0.62 librosa",
    "chainerrl": "chainerrl==0.8.0 gym<0.23",
    "chainerui": "chainerui==0.11.0 SQLAlchemy<2",
    "cvmodelz": "cvmodelz==0.4.0 chainercv2==0.0.62",
    "nnoir-chainer": "--no-deps nnoir-chainer==1.1.3 nnoir msgpack",
    "tensorboard-chainer": "tensorboard-chainer==0.5.3 tensorboardX",
    "waifu2x": "--no-deps waifu2x==2024.0.1",
}


@nox.session(venv_backend="none")
@nox.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test(session, python):
    """Ruff, mypy and all tests, in an environment of their own."""
    options = f"PYTHON=python{python}", f"VENV=.nox/python{python}"
    session.run("make", *options, "test", external=True)


@nox.session
@nox.parametrize("package", list(PACKAGES), ids=list(PACKAGES))
def packages(session, package):
    """A package around Chainer at its main job; the other tests are skipped."""
    old = "--no-build-isolation"
    session.install("setuptools<81", "wheel", "numpy", "poetry-core")
    chainer = "chainer==7.8.1", "chainercv==0.13.1"
    session.install(old, *chainer, env={"CC": "true", "LDSHARED": "true"})
    session.install(".[fast]", "hypothesis", "pytest", "pytest-timeout")
    isolated = [] if package == "tensorboard-chainer" else [old]
    session.install(*isolated, *PACKAGES[package].split())
    patches = "tests/chainer_revive/compat/test_importer.py"
    patches += "::test_patches_match_and_keep_line_numbers"
    session.run("pytest", "tests/packaging", "tests/zoo", patches)
