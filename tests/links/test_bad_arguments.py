"""Arguments of a classifier and its policy that would train another way are refused."""

import chainer.links as L
import numpy as np
import pytest
from chainer.iterators import SerialIterator

from chainer_mmix import ManifoldMixupClassifier, MixupLayers, MixupPolicy
from chainer_mmix.datasets import get_folder
from chainer_mmix.training.extensions import MixupPreview, PredictorEvaluator


def net():
    return MixupLayers(L.Linear(3, 3), ["input"])


@pytest.mark.parametrize("value", [2, 0, 0.5, "manifold", None])
def test_alpha_in_the_place_of_another_argument(value):
    with pytest.raises(TypeError, match=r"mixup_hidden must be True or False.*alpha=2"):
        ManifoldMixupClassifier(net(), value)
    assert not ManifoldMixupClassifier(net(), np.bool_(False)).mixes


@pytest.mark.parametrize(
    "name, value",
    [
        *[("lossfun", value) for value in (None, "ce")],
        *[("accfun", value) for value in (False, "accuracy")],
        *[("policy", value) for value in (0.2, MixupPolicy)],
        *[("label_smoothing", value) for value in ("x", None, 2, True)],
        *[("clean_weight", value) for value in ("h", None, -1, True)],
        *[("top_k", value) for value in (0, 1.5, "5", True)],
    ],
)
def test_arguments_of_a_classifier(name, value):
    with pytest.raises((TypeError, ValueError), match=f"{name} must .*, not "):
        ManifoldMixupClassifier(net(), **{name: value})


@pytest.mark.parametrize("name", ["fold", "common_draw"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_switches_are_true_or_false(name, value):
    with pytest.raises(TypeError, match=f"{name} must be True or False, not {value!r}"):
        MixupPolicy(**{name: value})


def test_whole_numbers_of_numpy_are_taken():
    model = ManifoldMixupClassifier(net(), top_k=np.int64(2), layer_mix=np.int64(0))
    assert (model.top_k, model.points) == (2, ("input",))


def test_true_is_no_mixing_point():
    with pytest.raises(TypeError, match="an integer or a name, not True"):
        ManifoldMixupClassifier(net(), layer_mix=True)


@pytest.mark.parametrize("value", [None, "big", [1, 2], True, np.True_])
def test_alphas_that_are_no_numbers(value):
    with pytest.raises(TypeError, match="alpha must be a number, not "):
        ManifoldMixupClassifier(net(), mixup_alpha=value)
    with pytest.raises(TypeError, match="prob must be a number, not "):
        MixupPolicy(prob=value)


@pytest.mark.parametrize("value", [0.5, "ab", (0.1,), (0.1, 0.2, 0.3)])
def test_bounds_that_are_not_two_numbers(value):
    with pytest.raises(ValueError, match="cutmix_minmax must be two numbers, not "):
        MixupPolicy(cutmix_minmax=value)
    with pytest.raises(TypeError, match="cutmix_minmax must be a number, not 'a'"):
        MixupPolicy(cutmix_minmax=("a", "b"))


def test_too_few_names_for_a_preview():
    data = [(np.zeros((1, 4, 4), np.float32), np.int32(i)) for i in range(3)]
    with pytest.raises(ValueError, match="has 1 names, but there is a label 2: give 3"):
        MixupPreview(data, label_names=["a"])
    MixupPreview(data, label_names=["a", "b", "c"])


@pytest.mark.parametrize("share", [2, 0, "0.2", np.nan])
def test_a_split_is_checked_before_pictures_are_read(tmp_path, share):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_text("no picture")
    with pytest.raises(ValueError, match="split must be between 0 and 1, not"):
        get_folder(tmp_path, validation_split=share)


@pytest.mark.parametrize("name", ["mixup_layers", "default_layer_mix"])
@pytest.mark.parametrize("points", [1, "input"])
def test_mixing_points_that_are_no_tuple(name, points):
    predictor = L.Linear(3, 3)
    setattr(predictor, name, points)
    with pytest.raises(TypeError, match=rf"Linear.{name} must be a tuple.*{points!r},"):
        ManifoldMixupClassifier(predictor, mixup_hidden=False)


def test_what_is_no_network_or_no_input_of_one():
    with pytest.raises(TypeError, match="net must be a link, not the class Linear"):
        MixupLayers.suggest(L.Linear, np.zeros((2, 3), np.float32))
    with pytest.raises(TypeError, match=r"not the shape \(2, 3\): numpy.zeros"):
        MixupLayers.suggest(L.Linear(3, 3), (2, 3))
    it = SerialIterator([(np.zeros(3, np.float32), np.int32(0))], 1, repeat=False)
    with pytest.raises(TypeError, match="measure must be a function, not None"):
        PredictorEvaluator(it, ManifoldMixupClassifier(net()), None)
