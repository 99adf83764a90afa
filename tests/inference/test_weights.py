"""Files of weights; tests/models/test_torchvision.py compares with PyTorch."""

import chainer
import numpy as np
import pytest

from chainer_mmix import models
from chainer_mmix.inference.weights import export_weights

numpy_files = pytest.importorskip("safetensors.numpy")
X = np.random.RandomState(0).rand(2, 3, 40, 40).astype(np.float32)


def features(net):
    """What the linear layer gets."""
    h = X
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for stage in net.stages():
            h = stage(h)
    return h.array


def trained(**options):
    net = models.ResNet18(10, **options)
    net(X)  # in training mode, which moves the statistics
    return net


@pytest.mark.parametrize("names", ["chainer", "torchvision"])
def test_exported_weights_load_again(names, tmp_path):
    net, other = (trained(stem="torchvision") for _ in range(2))
    export_weights(net, tmp_path / "w.safetensors", names)
    assert not np.allclose(features(other), features(net))
    models.load_pretrained(other, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(features(other), features(net))
    assert (other.fc6.W.array != net.fc6.W.array).any()


def test_the_names_are_those_of_torchvision(tmp_path):
    net = trained(stem="torchvision")
    n = export_weights(net, tmp_path / "w.safetensors", "torchvision", {"a": "b"})
    arrays = numpy_files.load_file(tmp_path / "w.safetensors")
    assert n == len(arrays) == 122  # as resnet18().state_dict() has
    for name, shape in [
        ("conv1.weight", (64, 3, 7, 7)),
        ("bn1.num_batches_tracked", ()),
        ("layer1.1.conv2.weight", (64, 64, 3, 3)),
        ("layer2.0.downsample.0.weight", (128, 64, 1, 1)),
        ("layer4.0.downsample.1.running_var", (512,)),
        ("fc.bias", (10,)),
    ]:
        assert arrays[name].shape == shape


def test_a_network_that_was_never_called_has_no_weights_yet(tmp_path):
    with pytest.raises(ValueError, match="has no shape yet"):
        export_weights(models.ResNet18(10), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="has no shape yet"):
        export_weights(
            models.ResNet18(10, stem="torchvision"), tmp_path / "w", "torchvision"
        )


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(ValueError, match="no whole file of weights"):
        models.load_pretrained(models.ResNet18(10), tmp_path / "w.safetensors")
