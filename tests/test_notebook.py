"""Executes the notebook of the examples."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_it_promises(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
    # Of tqdm, where another package imports it without ipywidgets.
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:IProgress not found")
    notebook = nbformat.read(NOTEBOOK, 4)
    client = nbclient.NotebookClient(
        notebook, timeout=250, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        (cell.source, {kind: data for o in cell.outputs for kind, data in _data(o)})
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]

    def outputs_of(text):
        (found,) = [outputs for source, outputs in shown if text in source]
        return found

    assert "MixupPolicy(alpha=2.0)" in outputs_of("mixup_alpha=2, seed=0")["text/plain"]
    training = outputs_of("training.run(trainer, record)")
    assert "100%, epoch 20 of 20" in training["text/html"]
    assert "\x1b[" not in str(training)
    for text in ("plot_pairs(", "plot_confusion(evaluation)", "train_moons(alpha),"):
        assert "image/png" in outputs_of(text)
    assert "image/png" in training
    accuracy = eval(outputs_of("plot_confusion(evaluation)")["stdout"])["accuracy"]
    assert accuracy > 0.8


def _data(output):
    if output.output_type == "stream":
        assert output.name == "stdout", output.text
        return [("stdout", output.text)]
    return output.data.items()
