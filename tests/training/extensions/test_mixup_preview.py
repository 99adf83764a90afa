import sys

import numpy as np
import pytest
from chainer.datasets import TupleDataset
from chainer.training.extensions import plot_report
from matplotlib import image

from chainer_mmix.training.extensions import MixupPreview


@pytest.fixture
def dataset():
    x = np.random.default_rng(0).random((9, 1, 8, 8)).astype(np.float32)
    return TupleDataset(x, np.arange(9, dtype=np.int32))


@pytest.mark.parametrize("filename", [None, "pairs.png"])
def test_it_writes_a_picture(make_trainer, dataset, tmp_path, filename):
    trainer = make_trainer(tmp_path)
    options = {} if filename is None else {"filename": filename}
    preview = MixupPreview(dataset, n_pair=3, **options)
    preview(trainer)
    picture = image.imread(tmp_path / (filename or "mixup_preview.png"))
    assert picture.shape[0] > picture.shape[1] > 300


def test_a_classifier_that_does_not_mix_has_no_picture(make_trainer, dataset, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.updater.get_optimizer("main").target.mixup_hidden = False
    MixupPreview(dataset)(trainer)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(64,), (8, 8), (2, 8, 8)])
def test_what_is_no_image_is_an_error(shape):
    dataset = TupleDataset(np.zeros((3, *shape), np.float32), np.zeros(3, np.int32))
    with pytest.raises(ValueError, match=str(shape[-1])):
        MixupPreview(dataset)


def test_without_matplotlib_it_warns_and_goes_on(
    make_trainer, dataset, tmp_path, monkeypatch
):
    trainer = make_trainer(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(plot_report, "_available", None)
    with pytest.warns(UserWarning, match="matplotlib is not installed"):
        MixupPreview(dataset)(trainer)
    assert not any(tmp_path.iterdir())


def test_examples_of_several_inputs_are_an_error(dataset):
    images = [x for x, _ in dataset]
    with pytest.raises(ValueError, match="have 3 parts"):
        MixupPreview(TupleDataset(images, images, np.arange(9)))
    named = [{"image": image, "label": 0} for image in images]
    with pytest.raises(ValueError, match="have names"):
        MixupPreview(named)


def test_label_maps_have_a_row_of_their_own(make_trainer, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((3, 1, 8, 8)).astype(np.float32)
    heights = []
    for t in (np.arange(3), rng.integers(-1, 3, (3, 8, 8))):
        trainer = make_trainer(tmp_path)
        MixupPreview(TupleDataset(x, t.astype(np.int32)))(trainer)
        heights.append(image.imread(tmp_path / "mixup_preview.png").shape[0])
    assert heights[1] > 1.5 * heights[0]
