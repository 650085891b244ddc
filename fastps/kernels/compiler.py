"""Turns a rule into machine code. The only place that imports numba, and the only one that sets its options.

A kernel has one shape, `fps_kernel` in csrc/dense.h: it reads parameters and gradients and writes the new values to a
third array. The core calls it a block at a time with a buffer that stays in the first-level cache and then copies the
result into place (and, in a push_pull, also to the puller), so nothing else has to be compiled.

Measured (bench/dense.py shows the sum): computing to the side and copying costs 1.05 of an update in place at 80 MB and
1.2 at 80 KB; writing the old values to an undo block in the same loop cost 1.12 and 1.4, and left the order of the two
stores, on which recovery would depend, to the optimiser.
"""

from __future__ import annotations

import inspect
import re

import llvmlite.binding as llvm
import numba
from numba import carray, types

from fastps.errors import CompileError
from fastps.kernels.image import KernelImage
from fastps.rules.base import Rule

# Without the numpy error model a division is checked for zero and the loop is not vectorised.
ERROR_MODEL = "numpy"
# None: every rule so far waits for memory, and without contraction the results equal numpy's bit for bit.
FASTMATH: frozenset[str] = frozenset()

TEMPLATE = """
def kernel(param, grad, result, n, hyper):
    p, g, r = carray(param, n), carray(grad, n), carray(result, n)
    {unpack}
    for i in range(n):
        r[i] = step({arguments})
"""


# What numba compiles takes two more arguments than `fps_kernel` and comes with wrappers that call into Python. A few
# lines of LLVM give it the plain signature, and show whether it can fail. With everything else internal, the optimiser
# drops what nobody calls. (The core declares no result: it is 0, which `to_object_code` makes sure of.)
BRIDGE = """
declare i32 @"{inner}"(ptr, ptr, ptr, ptr, ptr, i64, ptr)
define i32 @"{symbol}"(ptr %param, ptr %grad, ptr %result, i64 %n, ptr %hyper) {{
  %value = alloca ptr
  %error = alloca ptr
  %status = call i32 @"{inner}"(ptr %value, ptr %error, ptr %param, ptr %grad, ptr %result, i64 %n, ptr %hyper)
  ret i32 %status
}}
"""


def compile_rule(rule: Rule, dtype: str, symbol: str) -> KernelImage:
    """Compiles `rule` for float32 or float64. Raises CompileError. Cost: about a second, once."""
    element = {"float32": types.float32, "float64": types.float64}[dtype]
    hyper = [f"h{i}" for i in range(len(rule.hyper))]
    # The cast keeps arithmetic in the element's type: float64 hyper-parameters would halve the vector width.
    unpack = "\n    ".join(f"{name} = element(hyper[{i}])" for i, name in enumerate(hyper)) or "pass"
    source = TEMPLATE.format(unpack=unpack, arguments=", ".join(["p[i]", "g[i]", *hyper]))
    if not inspect.isfunction(rule.scalar):
        raise CompileError(f"{rule!r}: expected its step to be a Python function, got {type(rule.scalar).__name__}")
    step = numba.njit(error_model=ERROR_MODEL, fastmath=set(FASTMATH))(rule.scalar)
    names: dict[str, object] = {"carray": carray, "element": element, "step": step}
    exec(source, names)
    array = types.CPointer(element)
    signature = types.void(array, array, array, types.int64, types.CPointer(types.float64))
    to_cfunc = numba.cfunc(signature, nopython=True, error_model=ERROR_MODEL, fastmath=set(FASTMATH))
    try:
        compiled = to_cfunc(names["kernel"])
    except numba.core.errors.NumbaError as error:
        raise CompileError(f"{rule!r} for {dtype}: its step cannot be compiled: {error}") from error
    ir = compiled._library.get_llvm_str()
    return KernelImage(symbol, to_object_code(ir, compiled.native_name.removeprefix("cfunc."), symbol, repr(rule)))


def to_object_code(ir: str, inner: str, symbol: str, what: str) -> bytes:
    """Object code that exports `symbol` and needs nothing from outside."""
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, reloc="default",
        codemodel="large",
    )  # fmt: skip
    module = llvm.parse_assembly(ir)
    module.link_in(llvm.parse_assembly(BRIDGE.format(inner=inner, symbol=symbol)))
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name != symbol:
            value.linkage = "internal"
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    ends = re.findall(r"ret i32 (\S+)", str(module.get_function(symbol)))
    if set(ends) != {"0"}:  # the core takes no answer: half a block would be committed
        raise CompileError(f"{what}: its step can raise an exception; compute a value for every input instead")
    missing = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    if missing:
        raise CompileError(f"{what}: its step calls {missing}, which a process without numba does not have")
    code: bytes = machine.emit_object(module)
    return code
