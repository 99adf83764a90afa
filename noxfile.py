"""``nox`` runs ``make test`` on every supported Python."""

import nox


@nox.session(venv_backend="none")
@nox.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test(session, python):
    """Ruff, mypy and all tests, in an environment of their own."""
    options = f"PYTHON=python{python}", f"VENV=.nox/python{python}"
    session.run("make", *options, "test", external=True)
