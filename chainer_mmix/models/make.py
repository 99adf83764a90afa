from __future__ import annotations

from typing import Any

from chainer_mmix.lookup import lookup
from chainer_mmix.models.preactresnet import PreActResNet
from chainer_mmix.models.resnet import ResNet
from chainer_mmix.models.staged import Staged
from chainer_mmix.models.wideresnet import WideResNet


def make_model(
    name: str,
    n_class: int,
    *,
    stem: str = "imagenet",
    downsample_fb: bool = False,
    published: bool = False,
    stem_stride: int = 1,
) -> Staged:
    """Makes a model by its name, with options that only some models have.

    Args:
        name (str): A name in ``MODELS``.
        n_class (int): The number of outputs.
        stem (str): For the ResNets. The default is ``"imagenet"``.
        downsample_fb (bool): For the ResNets. The default is ``False``.
        published (bool): For the PreActResNets and WideResNets. The default is
            ``False``.
        stem_stride (int): For the PreActResNets and WideResNets. The default is 1.

    Returns:
        ~chainer.Chain: The network.

    Raises:
        ValueError: If there is no such model, or it lacks an option that is given.
    """
    from chainer_mmix.models import MODELS

    model_class: Any = lookup(MODELS, name, "model")
    more: dict[str, Any] = {}
    if issubclass(model_class, ResNet):
        more = {"stem": stem, "downsample_fb": downsample_fb}
    elif stem != "imagenet" or downsample_fb:
        raise ValueError(
            "stem and downsample_fb (--stem, --downsample-fb) are for resnet18 to "
            f"resnet152, not for {name}"
        )
    if issubclass(model_class, (PreActResNet, WideResNet)):
        more = {"published": published, "stem_stride": stem_stride}
    elif published or stem_stride != 1:
        option = "published" if published else "stem_stride"
        raise ValueError(
            f"{option} (--{option.replace('_', '-')}) is for preactresnet18 to 152 and "
            f"wideresnet28_10, the networks of the paper's code, not for {name}"
        )
    return model_class(n_class=n_class, **more)
