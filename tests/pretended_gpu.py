"""A GPU that is not there: tensors stay on the CPU, and carry a label of where they would be.

It runs all of a training, an evaluation and a night's lists on any machine. It refuses what a GPU
refuses: operands on different devices, a generator of another device, a GPU's tensor as an array.
It counts, line by line, where the host waits for the GPU, and what is copied to it. What computes
inside torch itself (the way back, the optimizer) has no label, and goes with anything.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_flatten, tree_map

_LABEL = "_pretended_device"
_WAITS = {"item", "tolist", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"}
_WAITS |= {"__bool__", "__int__", "__float__", "__index__", "equal", "allclose", "is_nonzero"}
_CROSSES = {"to", "cpu", "cuda", "copy_", "type", "__get__", "__set__", "__deepcopy__", "size"}
_CROSSES |= {"_has_compatible_shallow_copy_type"}
_INDEXES = {"__getitem__", "__setitem__", "index_put_", "index_put"}
_RealGenerator, _real_from_numpy = torch.Generator, torch.from_numpy
_real_copy_of_parameter = nn.Parameter.__deepcopy__


class Generator(_RealGenerator):
    """A generator with a label."""

    def __new__(cls, device: Any = "cpu") -> Any:  # noqa: ARG004 - __init__ reads it
        return super().__new__(cls)

    def __init__(self, device: Any = "cpu") -> None:
        self.label = torch.device(device).type

    @property
    def device(self) -> torch.device:
        return torch.device(self.label)


class PretendedGpu(TorchFunctionMode):
    """Inside the block ``cuda`` is a device.

    Attributes:
        waits: (file:line, operation) -> how often the host waited for the GPU there.
        copies: likewise, for copies from the host to the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self._patches = ExitStack()

    def __enter__(self) -> Any:
        for target, name, value in (
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "device_count", lambda: 2),
            (torch.cuda, "is_bf16_supported", lambda **_: False),
            (torch, "Generator", Generator),
            (torch, "from_numpy", lambda array: _labelled(_real_from_numpy(array), "cpu")),
            (nn.Parameter, "__deepcopy__", _copy_of_parameter),
        ):
            change: AbstractContextManager[Any] = patch.object(target, name, value)
            self._patches.enter_context(change)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if func is torch.device or name == "_parse_to":  # they only name a device
            return func(*args, **kwargs)
        if name == "__get__" and func in (
            torch.Tensor.device.__get__,
            torch.Tensor.is_cuda.__get__,
        ):
            label = _label(args[0]) or "cpu"
            return torch.device(label) if "device" in resolve_name(func) else label == "cuda"
        flat = tree_flatten((args, kwargs))[0]
        tensors = [part for part in flat if isinstance(part, torch.Tensor)]
        labels = {_label(part) for part in tensors} - {None}
        target = _target(name, flat, kwargs)
        if name == "cpu":
            target = "cpu"
        place = target or ("cuda" if "cuda" in labels else next(iter(labels), None))
        self._check(name, tensors, labels, place, kwargs)
        self._count(name, tensors, labels, target, args, kwargs)
        result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        if name == "__set__" and func == torch.Tensor.data.__set__:
            _labelled(args[0], _label(args[1]))
        if name in ("to", "cpu", "cuda") and target and labels and labels != {target}:
            result = result.clone() if result is args[0] else result
        fresh = [out for out in tree_flatten(result)[0] if isinstance(out, torch.Tensor)]
        for out in fresh:
            if target or _LABEL not in out.__dict__:
                _labelled(out, place or ("cpu" if not tensors else None))
        return result

    def _check(
        self, name: str, tensors: Any, labels: set[Any], place: str | None, kwargs: Any
    ) -> None:
        generator = kwargs.get("generator")
        if isinstance(generator, Generator) and place and generator.label != place:
            raise RuntimeError(f"{name} at {_line()}: a generator of {generator.label} on {place}")
        if name == "numpy" and "cuda" in labels:
            raise TypeError(f"{name} at {_line()}: a tensor on cuda is no array")
        if len(labels) < 2 or name in _CROSSES:
            return
        if name in _INDEXES and _label(tensors[0]) == "cuda":
            return  # a GPU's tensor may be indexed by indices of the host
        if any(_label(part) == "cpu" and part.dim() for part in tensors):
            raise RuntimeError(f"{name} at {_line()}: operands on {sorted(labels)}")

    def _count(
        self,
        name: str,
        tensors: Any,
        labels: set[Any],
        target: str | None,
        args: Any,
        kwargs: Any,
    ) -> None:
        if "cuda" in labels:
            mask = name in _INDEXES and any(
                isinstance(part, torch.Tensor) and part.dtype == torch.bool
                for part in tree_flatten(args[1:2])[0]
            )
            repeats = name == "repeat_interleave" and "output_size" not in kwargs
            if name in _WAITS or mask or repeats or (target == "cpu" and name in ("to", "cpu")):
                self.waits[_line(), name] += 1
            if name in _INDEXES and (moved := sum(_label(part) == "cpu" for part in tensors)):
                self.copies[_line(), name] += moved
            if name == "copy_" and _label(args[0]) == "cuda" and _label(args[1]) == "cpu":
                self.copies[_line(), name] += 1
        is_move = name in ("to", "cuda") and "cpu" in labels
        if target == "cuda" and (is_move or name in ("tensor", "as_tensor")):
            self.copies[_line(), name] += 1


def _target(name: str, flat: list[Any], kwargs: Any) -> str | None:
    """The device that a call names; None where it names none."""
    named = kwargs.get("device")
    if named is None and name == "to":
        named = next((p for p in flat[1:] if isinstance(p, str | torch.device)), None)
    return torch.device(named).type if named is not None else None


def _on_cpu(value: Any) -> Any:
    if isinstance(value, torch.device) or (isinstance(value, str) and value == "cuda"):
        return "cpu"
    return value


def _label(tensor: torch.Tensor) -> str | None:
    default = "cpu" if isinstance(tensor, nn.Parameter) else None
    label: str | None = tensor.__dict__.get(_LABEL, default)
    return label


def _labelled(tensor: torch.Tensor, label: str | None) -> torch.Tensor:
    if label is not None:
        tensor.__dict__[_LABEL] = label
    return tensor


def _copy_of_parameter(parameter: nn.Parameter, memo: Any) -> Any:
    return _labelled(_real_copy_of_parameter(parameter, memo), _label(parameter))


def _line() -> str:
    """The innermost line of recsys that is running."""
    frame = sys._getframe(1)
    while frame and "/recsys/" not in frame.f_code.co_filename:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "elsewhere"
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
