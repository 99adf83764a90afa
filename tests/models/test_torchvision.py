"""ResNets with stem="torchvision" against PyTorch."""

import chainer
import numpy as np
import pytest

from chainer_mmix import models
from chainer_mmix.inference.weights import export_weights

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")
nn = torch.nn


class Unit(nn.Module):
    """BasicBlock and Bottleneck of torchvision/models/resnet.py, version 0.20."""

    def __init__(self, c_in, width, stride, bottleneck):
        super().__init__()
        c_out = 4 * width if bottleneck else width
        if bottleneck:
            self.conv1 = nn.Conv2d(c_in, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.conv3 = nn.Conv2d(width, c_out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(c_out)
        else:
            self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
        self.bottleneck, self.downsample = bottleneck, None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    def __init__(self, n_units, bottleneck, n_class):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        c = 64
        for k, n in enumerate(n_units):
            width, units = 64 * 2**k, []
            for i in range(n):
                units.append(Unit(c, width, 2 if k and i == 0 else 1, bottleneck))
                c = width * (4 if bottleneck else 1)
            setattr(self, f"layer{k + 1}", nn.Sequential(*units))
        self.fc = nn.Linear(c, n_class)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


UNITS = {
    "resnet18": (models.ResNet18, (2, 2, 2, 2), False),
    "resnet50": (models.ResNet50, (3, 4, 6, 3), True),
}


def theirs(name, n_class=10):
    torch.manual_seed(0)
    _, units, bottleneck = UNITS[name]
    net = TorchResNet(units, bottleneck, n_class)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.0001, 1)
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    return net.eval()


X = np.random.RandomState(0).rand(2, 3, 70, 70).astype(np.float32)


def outputs(net):
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        return net(X).array


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, 0, 2e-5 * np.abs(expected).max())


def features(net, x):
    """What the linear layer gets."""
    with chainer.using_config("train", False), chainer.no_backprop_mode():
        for stage in net.stages():
            x = stage(x)
    return x.array.mean((2, 3))


@pytest.mark.parametrize("form", ["safetensors", "pth", "checkpoint"])
@pytest.mark.parametrize("name", UNITS)
def test_weights_of_torchvision_and_timm_load(name, form, tmp_path):
    net, own = theirs(name, 1000), UNITS[name][0](10, stem="torchvision")
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    state = net.state_dict()
    if form == "safetensors":
        safetensors.save_file(state, path)
    elif form == "pth":
        torch.save(state, path)
    else:
        renamed = {f"module.{k}": v for k, v in state.items()}
        torch.save({"epoch": 3, "state_dict": renamed}, path)
    models.load_pretrained(own, path)
    net.fc = nn.Identity()
    with torch.no_grad():
        expected = net(torch.from_numpy(X)).numpy()
    assert_close(features(own, X), expected)
    assert own.fc6.W.shape == (10, 2048 if name == "resnet50" else 512)


@pytest.mark.parametrize("name", UNITS)
def test_exported_weights_are_a_state_dict_of_torchvisions(name, tmp_path):
    own = UNITS[name][0](10, stem="torchvision")
    own(X)
    for link in own.links():
        if isinstance(link, chainer.links.BatchNormalization):
            link.avg_var[...] = np.linspace(0.1, 1, link.avg_var.size)
            link.beta.array[...] = np.linspace(-0.3, 0.3, link.avg_var.size)
    n = export_weights(own, tmp_path / "w.safetensors", "torchvision")
    net = TorchResNet(*UNITS[name][1:], 10).eval()
    state = safetensors.load_file(tmp_path / "w.safetensors")
    assert len(state) == n
    net.load_state_dict(state, strict=True)
    with torch.no_grad():
        assert_close(outputs(own), net(torch.from_numpy(X)).numpy())


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (
            lambda: models.ResNet18(10),
            "ResNet18 with the stem 'imagenet' is",
        ),
        (lambda: models.CNN(10), "CNN is no network of torchvision"),
        (lambda: models.ResNet34(10, stem="torchvision"), "choose the model of that"),
    ],
)
def test_they_do_not_load_into_other_networks(model, error, tmp_path):
    safetensors.save_file(theirs("resnet18").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=error):
        models.load_pretrained(model(), tmp_path / "w.safetensors")


def test_networks_with_other_parts_are_refused(tmp_path):
    state = theirs("resnet18").state_dict()
    state["layer1.0.se.fc1.weight"] = torch.zeros(3)
    safetensors.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"they also have layer1.0.se.fc1.weight"):
        models.load_pretrained(
            models.ResNet18(10, stem="torchvision"), tmp_path / "w.safetensors"
        )


def test_weights_of_the_other_stem_are_refused(tmp_path):
    """Which have the same shapes, and would compute something slightly else."""
    one, other = models.ResNet18(10), models.ResNet18(10, stem="torchvision")
    for net, wrong in ((one, other), (other, one)):
        net(X)
        chainer.serializers.save_npz(tmp_path / "w.npz", net, compression=False)
        with pytest.raises(ValueError, match="torchvision"):
            models.load_pretrained(wrong, tmp_path / "w.npz")


def test_code_in_a_file_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("the code ran",)

    torch.save({"state_dict": {"bn1.running_var": Evil()}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="no state dict of PyTorch"):
        models.load_pretrained(models.ResNet18(10), tmp_path / "w.pth")
    (tmp_path / "w.safetensors").write_bytes(b"\x08" + bytes(20))
    with pytest.raises(ValueError, match="no whole file of weights"):
        models.load_pretrained(models.ResNet18(10), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="safetensors cannot be read"):
        models.load_pretrained(models.ResNet18(10), tmp_path / "none.safetensors")
