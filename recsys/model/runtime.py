"""Where and how numbers are computed: apart from what is computed, which is the model's."""

from __future__ import annotations

import os
import platform
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from recsys.errors import ConfigurationError
from recsys.model.cores import free_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class MachineInfo:
    """A runtime as it was resolved, the machine and the versions beneath it."""

    device: str
    precision: str
    threads: int
    cpu: str
    cores: int | None
    gpu: str | None
    system: str
    python: str
    numpy: str
    torch: str


@dataclass(frozen=True)
class Runtime:
    """The machine side of a run.

    Attributes:
        device: "cpu", "cuda", one of several as "cuda:1", or "auto": CUDA where there is one.
        threads: CPU threads; 0 is every core that other processes leave free, and the last digits
            of what is computed depend on how many those are.
        precision: of the matrix products inside the network: "fp32", "bf16", or "auto": bf16
            where the hardware multiplies it natively. There it measured faster (see
            docs/experiment-log.md); a fixed rule, not a timing taken on the spot, keeps one seed at
            one result. Parameters, losses and final scores are float32 always.
    """

    device: str = "auto"
    threads: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ConfigurationError(
                f"device = {self.device!r}: it is auto, cpu, cuda, or one of several as cuda:1"
            )
        if self.precision not in _PRECISIONS:
            raise ConfigurationError(f"precision = {self.precision!r}: it is one of {_PRECISIONS}")
        if self.threads < 0:
            raise ConfigurationError(f"threads = {self.threads}: it is 0 (every free core) or more")
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.device.startswith("cuda") and (torch.device(self.device).index or 0) >= devices:
            raise ConfigurationError(
                f"device = {self.device!r}, but torch finds {devices or 'no'} CUDA devices here; "
                "the first one is cuda:0"
            )

    @property
    def torch_device(self) -> torch.device:
        """The device that ``device`` names."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    @property
    def bf16(self) -> bool:
        """Whether matrix products run in bfloat16."""
        if self.precision != "auto":
            return self.precision == "bf16"
        if self.torch_device.type == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return _cpu_has_bf16()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute with these threads and this precision inside the block."""
        before = torch.get_num_threads()
        threads = self.threads or min(before, free_cores.count())
        if threads != before:
            torch.set_num_threads(threads)
        try:
            with torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.bf16):
                yield
        finally:
            if threads != before:
                torch.set_num_threads(before)

    def machine_info(self) -> MachineInfo:
        """Return what was chosen, and on what machine, for the metadata of what it computes."""
        info = Path("/proc/cpuinfo")
        match = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
        cuda = self.torch_device.type == "cuda"
        has_affinity = hasattr(os, "sched_getaffinity")
        return MachineInfo(
            device=self.torch_device.type,
            precision="bf16" if self.bf16 else "fp32",
            threads=self.threads or torch.get_num_threads(),
            cpu=match[1] if match else platform.processor(),
            cores=len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
            gpu=torch.cuda.get_device_name(self.torch_device) if cuda else None,
            system=platform.platform(),
            python=platform.python_version(),
            numpy=np.__version__,
            torch=torch.__version__,
        )


def _cpu_has_bf16() -> bool:
    # torch.ops.mkldnn's own check also says yes where bf16 is emulated, and slower than fp32.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
