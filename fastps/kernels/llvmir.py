"""Turns numba's output into object code that needs neither numba nor Python.

numba's code for a C callback takes two more arguments than C passes, has wrappers that call into Python, and refers to
numba's runtime. A few lines of LLVM give it plain signatures; with everything else internal, the optimiser drops unused
code, and shows what a rule still needs.
"""

from __future__ import annotations

import re
from typing import Any

import llvmlite.binding as llvm

from fastps.errors import CompileError

# Of the C library, which every process has loaded.
LIBM = {
    name + suffix
    for name in [
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "copysign",
        "cos",
        "cosh",
        "erf",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "fabs",
        "floor",
        "fmod",
        "hypot",
        "ldexp",
        "lgamma",
        "log",
        "log10",
        "log1p",
        "log2",
        "nearbyint",
        "pow",
        "rint",
        "round",
        "sin",
        "sinh",
        "sqrt",
        "tan",
        "tanh",
        "tgamma",
        "trunc",
    ]
    for suffix in ("", "f")
}


def bridge(symbol: str, state: list[str], results: list[str], own: list[tuple[str, str]]) -> str:
    """LLVM code of the exported functions, which call `kernel_inner` and `prepare_inner`.

    A kernel's arrays do not overlap, which LLVM must know to vectorise loops over this many arrays. The attribute must
    survive inlining, so the function that has it is not inlined.
    """
    taken = [*(("ptr", name) for name in [*state, "g", *results]), *own, ("ptr", "uniforms")]
    kinds = ", ".join(kind for kind, _ in taken)
    values = ", ".join(f"{kind} %{name}" for kind, name in taken)
    promised = ", ".join(f"{'ptr noalias' if kind == 'ptr' else kind} %{name}" for kind, name in taken)
    loads = [
        f"  %{name}.at = getelementptr ptr, ptr %{base}, i64 {i}\n  %{name} = load ptr, ptr %{name}.at"
        for base, names in (("state", state), ("results", results))
        for i, name in enumerate(names)
    ]
    called = "  %value = alloca ptr\n  %error = alloca ptr\n  %status = call i32"
    plain = ", ".join(["ptr %state", "ptr %g", "ptr %results", *(f"{kind} %{name}" for kind, name in own)])
    return "\n".join(
        [
            f"declare i32 @kernel_inner(ptr, ptr, {kinds})",
            "declare i32 @prepare_inner(ptr, ptr, ptr, double, ptr)",
            f"define i32 @kernel_outer({promised}) noinline {{",
            f"{called} @kernel_inner(ptr %value, ptr %error, {values})\n  ret i32 %status\n}}",
            f'define i32 @"{symbol}_prepare"(ptr %hyper, double %step, ptr %uniforms) {{',
            f"{called} @prepare_inner(ptr %value, ptr %error, ptr %hyper, double %step, ptr %uniforms)",
            "  ret i32 %status\n}",
            f'define i32 @"{symbol}"({plain}, ptr %uniforms) {{',
            *loads,
            f"  %status = call i32 @kernel_outer({values})\n  ret i32 %status\n}}",
        ]
    )


def link(what: str, where: str, symbol: str, bridge: str, parts: dict[str, Any]) -> bytes:
    """Object code that exports `symbol` and ``{symbol}_prepare`` and needs the C library's mathematics at most."""
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, reloc="default",
        codemodel="large",
    )  # fmt: skip
    module = llvm.parse_assembly(bridge)
    for name, part in parts.items():
        inner = part.native_name.removeprefix("cfunc.")
        module.link_in(llvm.parse_assembly(part.inspect_llvm().replace(inner, name)))
    exported = (symbol, f"{symbol}_prepare")
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in exported:
            value.linkage = "internal"
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    for name in exported:
        if set(re.findall(r"ret i32 (\S+)", str(module.get_function(name)))) != {"0"}:
            # the core ignores the return value: half a block would be committed
            raise CompileError(f"{what}: it can raise an exception; compute a value for every input instead{where}")
    missing = [
        f.name for f in module.functions
        if f.is_declaration and not f.name.startswith("llvm.") and f.name not in LIBM
    ]  # fmt: skip
    if missing:
        raise CompileError(f"{what}: it calls {missing}, which a process without numba does not have{where}")
    code: bytes = machine.emit_object(module)
    return code
