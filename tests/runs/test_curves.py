import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg

from chainer_mmix.analysis.figure import OKABE_ITO
from chainer_mmix.runs.curves import mean_curve, plot_curves, save_curves
from chainer_mmix.runs.groups import group_runs
from chainer_mmix.runs.metric import choose_metric
from chainer_mmix.runs.run import Run, read_run

ACCURACY = "validation/main/accuracy"


def metric(groups):
    return choose_metric([run for group in groups for run in group.runs])


def group(folders):
    return group_runs([read_run(folder) for folder in folders])


def count_pixels(picture, color):
    rgb = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((np.abs(picture[..., :3] - rgb).max(axis=-1) < 0.01).sum())


def test_mean_curve_of_runs_of_different_lengths_and_nan(write_run):
    (one,) = group(
        [
            write_run("a", (0.1, 0.2, 0.3), seed=0),
            write_run("b", (0.3, math.nan, 0.7), losses=(1, 1, 1), seed=1),
            write_run("c", (0.8,), seed=2),
        ]
    )
    epochs, means, stds = mean_curve(one, lambda _: ACCURACY)
    np.testing.assert_array_equal(epochs, [1, 2, 3])
    np.testing.assert_allclose(means, [0.4, 0.2, 0.5])
    np.testing.assert_allclose(
        stds, [np.std([0.1, 0.3, 0.8], ddof=1), 0, np.std([0.3, 0.7], ddof=1)]
    )


def test_several_entries_of_one_epoch_are_averaged():
    log = [{"epoch": e, ACCURACY: a} for e, a in [(0, 0.2), (0, 0.4), (1, 1)]]
    (one,) = group_runs([Run(Path(), log, {"arguments": {}})])
    epochs, means, _ = mean_curve(one, lambda _: ACCURACY)
    np.testing.assert_array_equal(epochs, [0, 1])
    np.testing.assert_allclose(means, [0.3, 1.0])


def test_png_has_a_sane_size_and_a_colour_for_each_group(write_run, tmp_path):
    groups = group(
        [
            write_run(f"{mixup}{seed}", (0.2, 0.5 + 0.1 * seed, gain), mixup=mixup)
            for mixup, gain in (("none", 0.6), ("input", 0.7), ("manifold", 0.9))
            for seed in range(2)
        ]
    )
    save_curves(groups, metric(groups), tmp_path / "curves.png")
    picture = image.imread(tmp_path / "curves.png")
    height, width, _ = picture.shape
    assert 800 <= width <= 2000
    assert 400 <= height <= 1500
    half = width // 2
    for color in OKABE_ITO[1:3]:
        assert count_pixels(picture[:, :half], color) > 100
        assert count_pixels(picture[:, half:], color) > 100
    assert count_pixels(picture, OKABE_ITO[4]) == 0
    assert [p.name for p in tmp_path.iterdir() if "curves" in p.name] == ["curves.png"]


LONG = {f"option_{k}": "a-value-without-a-gap" for k in range(9)}


@pytest.mark.parametrize("more", [{}, {"note": "W" * 40}, LONG, {"path": "/w" * 200}])
def test_legend_and_note_lie_outside_the_panels(write_run, more):
    runs = [
        write_run(str(i), lr=i / 10, **{k: f"{v}{i}" for k, v in more.items()})
        for i in range(10)
    ]
    groups = group(runs)
    figure = plot_curves(groups, metric(groups))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert legend.get_texts()[1].get_text().startswith("lr=0.1 ")
    assert all(axes.get_window_extent().height > 250 for axes in figure.axes)
    note = next(t for t in figure.texts if "mixed targets" in t.get_text())
    page = figure.bbox
    for artist in (legend, note):
        box = artist.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1
        assert page.y0 <= box.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    styles = {
        (handle.get_color(), handle.get_marker()) for handle in legend.legend_handles
    }
    assert len(styles) == 10


def test_a_single_epoch_is_visible(write_run, tmp_path):
    groups = group([write_run("a", (0.5,), lr=1), write_run("b", (0.6,), lr=2)])
    save_curves(groups, metric(groups), tmp_path / "one.png")
    left = image.imread(tmp_path / "one.png")[60:, :480]
    assert count_pixels(left, OKABE_ITO[1]) > 3


def test_a_run_of_nan_only_is_drawn_without_error(write_run, tmp_path):
    groups = group([write_run("a", (math.nan,) * 2)])
    save_curves(groups, metric(groups), tmp_path / "nan.png")
    assert image.imread(tmp_path / "nan.png").std() > 0


def test_a_failure_keeps_the_old_picture(write_run, tmp_path, monkeypatch):
    groups = group([write_run("a")])
    out = tmp_path / "curves.png"
    out.write_bytes(b"old")

    def fail(canvas, stream):
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", fail)
    with pytest.raises(OSError, match="disk full"):
        save_curves(groups, metric(groups), out)
    assert out.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "curves.png"]
