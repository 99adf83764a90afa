import random
import sys

import numpy as np
import pytest
from chainer.datasets import TransformDataset, TupleDataset
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


def test_examples_that_are_augmented_at_random_leave_the_state_alone(dataset):
    def augment(example):
        return example[0] + np.float32(np.random.rand() + random.random()), example[1]

    states = np.random.get_state()[2], random.getstate()
    MixupPreview(TransformDataset(dataset, augment))
    assert (np.random.get_state()[2], random.getstate()) == states


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
