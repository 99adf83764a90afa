"""Uses, from the first call on a GPU, what this card has been seen to compute right."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import chainer
from chainer.backends import cuda

from chainer_revive import registry

_REPORT = "Please open an issue with the file that 'chainer-mmix doctor' writes"


def wait(layers: frozenset[str]) -> None:
    """Has the layers ``cuda`` and ``cudnn``, or one of them, wait for a GPU's use."""
    registry.wait(registry.Waiting(layers, _is_on_a_gpu, lambda: decide(layers)))


def _is_on_a_gpu(arguments: tuple) -> bool:
    first, *rest = arguments
    if isinstance(first, chainer.Optimizer):
        return isinstance(first.target.device, chainer.backend.GpuDevice)
    return any(
        isinstance(array, cuda.ndarray)
        for inputs in rest
        if isinstance(inputs, tuple)
        for array in inputs
    )


def decide(layers: frozenset[str]) -> None:
    """Switches the layers on, but for what the current card computes wrong."""
    from chainer_revive.gpu_check import card, faults, modules, verdict

    try:
        device = cuda.cupy.cuda.Device().id
        here = card.describe(modules)
        found = verdict.get(here, device)
    except Exception as e:  # Training goes on with Chainer's own code.
        _leave_all_off(layers)
        report = "" if faults.sentence(e) else f". {_REPORT}"
        warnings.warn(
            f"This GPU could not be checked ({faults.explain(e)}): Chainer's own code "
            f"runs{report}",
            stacklevel=2,
        )
        return
    if sentence := faults.too_new(here):
        warnings.warn(sentence, stacklevel=2)
    if found.crash is not None:
        where = f" during {found.during}" if found.during else ""
        crash = "; ".join(filter(None, (found.crash, faults.sentence(found.crash))))
        _leave_all_off(layers)
        _warn(f"The check of {here['card']} ended early{where} ({crash})")
        return
    failures = found.failures()
    failures = {name: failures[name] for name in _concerned(failures, layers)}
    registry.leave_off({*registry.left_off(), *failures})
    for name, sentence in failures.items():
        _warn(f"On {here['card']}, {name}, {sentence}", "there")
    if "cuda" in layers:
        from chainer_revive.cuda import current

        current.use(current.on_cupy())
    if "cudnn" in layers and "cudnn" in card.usable_layers():
        registry.switch("cudnn", True)


def _leave_all_off(layers: frozenset[str]) -> None:
    """Leaves off what needs no layer, too, such as mixing."""
    from chainer_revive.gpu_check import modules, run

    names = (unit.name for unit in run.units(modules))
    registry.leave_off({*registry.left_off(), *_concerned(names, layers)})


def _concerned(names: Iterable[str], layers: frozenset[str]) -> set[str]:
    """Leaves out what somebody insists on: functions of the other layers."""
    others = {"cuda", "cudnn"} - layers
    return {name for name in names if name.partition("/")[0] not in others}


def _warn(found: str, where: str = "everywhere") -> None:
    warnings.warn(
        f"{found}: Chainer's own code runs {where}. {_REPORT}",
        stacklevel=2,
    )
