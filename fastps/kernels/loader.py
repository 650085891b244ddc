"""Loads object code into this process, without numba: llvmlite links it and gives its address."""

from __future__ import annotations

import os
import threading
from typing import Any

import llvmlite.binding as llvm

from fastps.kernels.image import KernelImage


def host_cpu() -> str:
    """What object code is valid for: the CPU's name and its features."""
    features = ",".join(sorted(name for name, on in llvm.get_host_cpu_features().items() if on))
    return f"{llvm.get_host_cpu_name()},{features}"


class Loader:
    """The kernels of this process. They stay for its life: operations of other threads may be inside them."""

    def __init__(self) -> None:
        self._renew_lock()
        os.register_at_fork(after_in_child=self._renew_lock)  # a thread that held it is not in the child
        self._addresses: dict[str, tuple[int, int]] = {}
        self._engine: Any = None  # an llvmlite ExecutionEngine, which owns the code

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def addresses_of(self, image: KernelImage) -> tuple[int, int]:
        """The addresses of the kernel of `image` and its `prepare`, loaded at the first call. Cost: about 5 ms,
        once."""
        digest = image.digest
        with self._lock:
            if digest not in self._addresses:
                self._addresses[digest] = self._load(image)
            return self._addresses[digest]

    def _load(self, image: KernelImage) -> tuple[int, int]:
        if self._engine is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            machine = llvm.Target.from_default_triple().create_target_machine()
            self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(image.code))
        self._engine.finalize_object()
        kernel, prepare = (self._engine.get_function_address(image.symbol + end) for end in ("", "_prepare"))
        if kernel == 0 or prepare == 0:
            raise ImportError(f"kernel {image.symbol}: not in its object code")
        return kernel, prepare


_process = Loader()
addresses_of = _process.addresses_of
