import io
import sys
import types
from unittest import mock

import pytest
from matplotlib import image

from chainer_mmix.training import find_snapshot, load_snapshot
from chainer_mmix.training.extensions.notebook_report import (
    NotebookReport,
    draw_curves,
    in_notebook,
)


class Shown:
    """What a notebook shows in one place."""

    def __init__(self, content):
        self.contents = [content]

    def update(self, content):
        self.contents.append(content)


@pytest.fixture
def notebook(monkeypatch):
    """A stand-in for IPython in a notebook; the places that were shown, in order."""
    places = []

    def display(content, display_id):
        assert display_id is True
        places.append(Shown(content))
        return places[-1]

    ipython = types.ModuleType("IPython")
    ipython.version_info = (9, 0)  # Matplotlib asks
    shell = mock.MagicMock()  # Matplotlib registers its events there
    ipython.get_ipython = lambda: shell
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    ipython.display.HTML = ipython.display.Image = lambda content: content
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return places


def test_bar_table_and_curves_follow_the_training(
    tmp_path, make_trainer, notebook, capsys
):
    assert in_notebook()
    trainer = make_trainer(tmp_path, epoch=3)
    trainer.extend(NotebookReport(), trigger=lambda trainer: True)
    trainer.run()
    text, picture = notebook
    assert text.contents[0].startswith('<p><progress value="0.0000"')
    last = text.contents[-1]
    assert "100%, epoch" in last and last.count("<tr>") == 4
    log = trainer.get_extension("LogReport").log
    for entry in log:
        assert f"<td>{entry['validation/main/loss']:.4g}</td>" in last
    assert len(picture.contents) == 3  # once an epoch
    assert image.imread(io.BytesIO(picture.contents[-1])).std() > 0.05
    assert "\033" not in capsys.readouterr().out


def test_build_trainer_chooses_it_in_a_notebook(
    tmp_path, make_trainer, notebook, monkeypatch
):
    from chainer_mmix import training

    build = training.build_trainer

    def loud(*args, **kwargs):
        return build(*args, **{**kwargs, "quiet": False})

    monkeypatch.setattr(training, "build_trainer", loud)
    trainer = make_trainer(tmp_path, epoch=1)
    assert "NotebookReport" in trainer._extensions
    assert "PrintReport" not in trainer._extensions
    trainer.run()
    # Its snapshot is that of any run.
    monkeypatch.delitem(sys.modules, "IPython")
    monkeypatch.setitem(sys.modules, "IPython", None)
    plain = make_trainer(tmp_path, epoch=2)
    assert "PrintReport" in plain._extensions
    load_snapshot(find_snapshot(tmp_path), plain)
    assert plain.updater.epoch == 1


def test_a_resumed_run_begins_with_what_there_is(tmp_path, make_trainer, notebook):
    make_trainer(tmp_path, epoch=1).run()
    trainer = make_trainer(tmp_path, epoch=2)
    trainer.extend(NotebookReport(), trigger=lambda trainer: True)
    load_snapshot(find_snapshot(tmp_path), trainer)
    trainer.run()
    text, picture = notebook
    assert "<td>1</td>" in text.contents[0]
    assert len(picture.contents) == 2


def test_curves_lack_what_the_log_lacks():
    log = [{"epoch": 1, "a": 1.0}, {"epoch": 2, "a": 2.0, "b": 3.0}]
    png = draw_curves(log, [("a", "b"), ("none",)])
    assert image.imread(io.BytesIO(png)).shape[1] == 800
