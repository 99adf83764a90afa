import importlib.metadata
import unittest

import pytest
from chainer import testing

from chainer_revive.compat import requirements


def test_satisfied():
    found = requirements.require("numpy>=2,!=2.0.0rc1", "chainer == 7.8.1", "scipy")
    assert [d.version for d in found] == [
        importlib.metadata.version(name) for name in ("numpy", "chainer", "scipy")
    ]
    assert requirements.get_distribution("chainercv").version == "0.13.1"


def test_another_version():
    with pytest.raises(requirements.VersionConflict, match=r"7\.8\.1 is not chainer<7"):
        requirements.require("numpy", "chainer<7")


def test_not_installed():
    with pytest.raises(requirements.DistributionNotFound, match="no-such-thing"):
        requirements.require("no-such-thing>=1")
    with pytest.raises(requirements.ResolutionError):
        requirements.get_distribution("no-such-thing")


@pytest.mark.parametrize(
    ("decorator", "ran"),
    [
        (testing.with_requires("numpy>=2"), True),
        (testing.with_requires("numpy<2"), False),
        (testing.without_requires("numpy<2"), True),
    ],
)
def test_decorators_of_chainers_tests(decorator, ran):
    calls = []

    class Case(unittest.TestCase):
        @decorator
        def test(self):
            calls.append(True)

    Case("test").run()
    assert bool(calls) == ran


def test_chainer_warns_of_an_unsupported_cupy(tmp_path, monkeypatch):
    import chainer._environment_check as check

    info = tmp_path / "cupy-6.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: cupy\nVersion: 6.0.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match=r"CuPy \(cupy\) version 6\.0\.0 may not be"):
        check._check_optional_dependencies()
