from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from pathlib import Path

import chainer
import chainer.links as L
import numpy as np
from chainer.serializers import DictionarySerializer, NpzDeserializer

from chainer_mmix.models.resnet import ResNet50
from chainer_mmix.models.torchvision import from_torchvision, is_torchvisions
from chainer_mmix.printable import printable

# Where a model is in a snapshot of a Trainer, in a saved classifier, and by itself.
_PREFIXES = ("updater/model:main/predictor/", "predictor/", "")
# What Staged.standardise saves.
_CONSTANTS = {"mean", "std", "per_image_standardisation"}
_OTHER_MODEL = "choose the model that they were saved from"


def load_pretrained(model: chainer.Chain, path: str | Path) -> None:
    """Loads pretrained weights into a model of this package, except its last layer.

    The linear layer at the end keeps its initial weights, to be trained on other
    classes, and the constants by which the model standardises its input do not change.
    After an error, the model is unchanged. The file may contain:

    * for :class:`~chainer_mmix.models.ResNet50`, 101 and 152 with the ImageNet stem,
      the weights of :class:`chainer.links.ResNet50Layers` etc., such as
      ``ResNet-50-model.npz``. They expect images in BGR, 0 to 255, less the mean
      (103.063, 115.903, 123.152), as :func:`chainer.links.model.vision.resnet.prepare`
      gives them;
    * for the same models, the weights of :class:`chainercv.links.ResNet50` etc. They
      expect RGB, 0 to 255, less the mean (123.152, 115.903, 103.063). Those of
      ``arch="fb"``, ChainerCV's default, need a model with ``downsample_fb=True``;
      those of ``arch="he"``, like Chainer's, need one without. Only the weights of
      ResNet50 reveal their ``arch``. For the other depths, the published weights of
      ``"fb"`` are called ``*_imagenet_trained_*.npz`` and those of ``"he"``
      ``*_imagenet_converted_*.npz``; a wrong choice shows only in the accuracy;
    * for :class:`~chainer_mmix.models.ResNet18` to 152 with ``stem="torchvision"``, a
      state dict of torchvision's or timm's network of that depth: a file
      ``.safetensors``, or ``.pth``, which PyTorch reads with ``weights_only=True``.
      Those of ImageNet expect RGB in [0, 1], less (0.485, 0.456, 0.406), divided by
      (0.229, 0.224, 0.225);
    * for all models, the weights of a model of the same class, written by
      :func:`chainer.serializers.save_npz` from the model, from a classifier around it
      or from a Trainer (a snapshot), or by ``chainer-mmix export`` into a file
      ``.safetensors``.

    Args:
        model (~chainer.Chain): The model, on any device. If it has not been called yet,
            its first convolution gets as many input channels as the weights have.
        path (str or path-like): The file. No code in it is executed.

    Raises:
        ImportError: If the file needs safetensors or PyTorch, which is missing.
        ValueError: If there is no such file, it is of another kind, or its weights do
            not fit.
    """
    arrays = _read(path)
    if is_torchvisions(arrays):
        try:
            arrays = from_torchvision(model, arrays)
        except ValueError as e:
            raise ValueError(f"{path} has weights of torchvision or timm: {e}") from e
    # ChainerCV's ResNet50 has a bias there if arch="he", as the original has.
    is_chainercvs_50 = "conv1/conv/W" in arrays and isinstance(model, ResNet50)
    is_fb = "conv1/conv/b" not in arrays
    (last,) = (k for k, link in model.namedlinks() if isinstance(link, L.Linear))

    def is_last(name: str) -> bool:
        return f"/{name}".startswith(f"{last}/")

    arrays = {_chainers_name(k): v for k, v in arrays.items() if not is_last(k)}
    serializer = DictionarySerializer()
    serializer.save(model)
    wanted = {
        name: _like(model, name, np.asarray(value), arrays)
        for name, value in sorted(serializer.target.items())
        if not is_last(name)
    }
    if "conv1/b" in wanted:
        # Without it, the same function: batch normalisation follows.
        arrays.setdefault("conv1/b", np.zeros(wanted["conv1/b"].shape, np.float32))
    if _CONSTANTS & arrays.keys() and not _CONSTANTS & wanted.keys():
        reason: str | None = (
            "they are of a network that standardises its input: have the model do it, "
            "too (--standardise)"
        )
    else:
        for name in _CONSTANTS:
            arrays.pop(name, None)
            wanted.pop(name, None)
        reason = _difference(arrays, wanted)
    if not reason and is_chainercvs_50 and is_fb != model.downsample_fb:
        arch = "fb" if is_fb else "he"
        reason = f"they are of arch={arch!r}: make it with downsample_fb={is_fb}"
    if reason:
        raise ValueError(
            f"the weights in {path} do not fit {type(model).__name__}: "
            f"{printable(reason)}"
        )
    NpzDeserializer(arrays, strict=False).load(model)


def _read(path: str | Path) -> dict[str, np.ndarray]:
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path)
    if suffix in (".pt", ".pth"):
        return _read_pytorch(path)
    try:
        with open(path, "rb") as file:
            try:
                npz = np.load(file, allow_pickle=False)
                prefix = next(p for p in _PREFIXES if any(k.startswith(p) for k in npz))
                # What is no array comes as bytes, which have no view.
                return {
                    k.removeprefix(prefix): npz[k].view()
                    for k in npz
                    if k.startswith(prefix)
                }
            except Exception as e:  # a damaged zip file raises nearly anything
                raise ValueError(
                    f"{path} is no npz file of weights, or it is cut off or damaged: "
                    "give one that chainer.serializers.save_npz wrote"
                ) from e
    except OSError as e:
        raise ValueError(
            f"the weights {path} cannot be read ({e.strerror}): check the path and "
            "its permissions"
        ) from e


def _read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as e:
        raise ImportError(
            f"{path} needs safetensors, which cannot be imported ({e}): "
            "pip install 'chainer-mmix[safetensors]'"
        ) from e
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as e:
        raise ValueError(
            f"{path} is no whole file of weights in float32 or float16 ({e}): save it "
            "anew by safetensors"
        ) from e
    except OSError as e:
        raise ValueError(
            f"the weights {path} cannot be read ({e}): check the path and its "
            "permissions"
        ) from e


def _read_pytorch(path: str | Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as e:
        raise ImportError(
            f"{path} needs PyTorch, which cannot be imported ({e}): install it, or "
            "save the weights by safetensors, safetensors.torch.save_file(state_dict, "
            "'model.safetensors')"
        ) from e
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        found = found.get("state_dict", found)
        return {k.removeprefix("module."): v.float().numpy() for k, v in found.items()}
    except OSError as e:
        raise ValueError(
            f"the weights {path} cannot be read ({e.strerror}): check the path and "
            "its permissions"
        ) from e
    except Exception as e:  # PyTorch raises nearly anything
        raise ValueError(
            f"{path} is no state dict of PyTorch that weights_only=True loads "
            f"({' '.join(str(e).split())[:200]}): give one that "
            "torch.save(model.state_dict(), ...) wrote"
        ) from e


def _chainers_name(name: str) -> str:
    """Translates ChainerCV's names, such as res2/a/conv1/conv/W, and no others."""
    name = name.replace("residual_conv/", "conv4/")
    return re.sub(r"conv(\d)/bn/", r"bn\1/", re.sub(r"(conv\d)/conv/", r"\1/", name))


def _like(
    model: chainer.Chain, name: str, value: np.ndarray, arrays: dict[str, np.ndarray]
) -> np.ndarray:
    """Gives a convolution that is yet to be initialised the file's input channels."""
    if value.dtype != object or name not in arrays:
        return value
    *parents, _ = name.split("/")
    conv = reduce(getattr, parents, model)
    channels = arrays[name].shape[1:2]
    shape = (conv.out_channels, *channels, conv.ksize, conv.ksize)
    return np.broadcast_to(np.float32(0), shape)


def _difference(
    arrays: dict[str, np.ndarray], wanted: dict[str, np.ndarray]
) -> str | None:
    """Says in what the weights differ from the model's, and what to do."""
    units, wanted_units = _count_units(arrays), _count_units(wanted)
    if units != wanted_units and units.keys() == wanted_units.keys():
        return (
            f"their stages have {_join(units.values())} units, not "
            f"{_join(wanted_units.values())}: choose the model of that depth"
        )
    wrong = [k for k in wanted if k in arrays and arrays[k].shape != wanted[k].shape]
    if wrong:
        shape, wanted_shape = arrays[wrong[0]].shape, wanted[wrong[0]].shape
        remedy = _OTHER_MODEL
        if len(wrong) == 1 and len(shape) == 4:
            if shape[2:] != wanted_shape[2:]:
                stem = "imagenet" if shape[2:] == (7, 7) else "cifar"
                remedy = f"make it with stem={stem!r}"
            elif shape[1] != wanted_shape[1]:
                remedy = (
                    f"they are for images of {shape[1]} channels, the model is for "
                    f"{wanted_shape[1]}"
                )
        return f"their {wrong[0]} has shape {shape}, not {wanted_shape}: {remedy}"
    lacking = [k for k in wanted if k not in arrays]
    if lacking:
        return f"they lack {_first(lacking)}: {_OTHER_MODEL}"
    extra = sorted(k for k in arrays if k not in wanted)
    if extra:
        return f"they also have {_first(extra)}: {_OTHER_MODEL}"
    for k in wanted:
        if not np.can_cast(arrays[k].dtype, wanted[k].dtype, "same_kind"):
            return f"their {k} is of type {arrays[k].dtype}, not {wanted[k].dtype}"
    return None


def _count_units(names: Iterable[str]) -> dict[str, int]:
    units: dict[str, set[str]] = {}
    for name in names:
        stage, *rest = name.split("/")
        if len(rest) == 3:  # the unit, a link in it, and the weight
            units.setdefault(stage, set()).add(rest[0])
    return {stage: len(units[stage]) for stage in sorted(units)}


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _join(values: Iterable) -> str:
    return ", ".join(map(str, values))
