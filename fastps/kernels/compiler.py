"""Turns a rule into machine code: the one place that runs numba's compiler and sets its options.

A rule becomes two functions in one object file. `prepare` computes the values that are uniform over a push; a kernel
(shapes.py) loops over elements. Both are pure arithmetic: no allocation, no check, no Python object.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, CellType, FunctionType
from typing import Any

import numba
import numpy as np
from numba import carray, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.registry import CPUDispatcher, cpu_target
from numba.core.untyped_passes import TranslateByteCode

from fastps.errors import CompileError
from fastps.kernels import functions, llvmir
from fastps.kernels.hoist import ARGUMENT, is_function, is_number, split
from fastps.kernels.image import KernelImage
from fastps.kernels.shapes import SHAPES, Shape, squares
from fastps.rules.base import MEAN_SQUARE, PULLED, Rule
from fastps.rules.source import at_line, at_line_of

# Without the numpy error model a division is checked for zero and the loop is not vectorised. No fastmath: the flags
# that would matter break NaN, and the others (contraction) do not make rules faster.
OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": False}
# Of functions that only other compiled code calls: numba makes no ways to call them from Python or C.
INNER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
MAX_UNIFORMS = 32  # FPS_MAX_UNIFORMS in csrc/rule.h; followed by the limit and the scale of gradients
ELEMENTS: dict[str, tuple[Any, type]] = {
    "float32": (types.float32, np.float32),
    "float64": (types.float64, np.float64),
}


@register_pass(mutates_CFG=True, analysis_only=False)
class TakeSplit(FunctionPass):  # type: ignore[misc]
    """Uses the representation that is attached to a function instead of the one of its bytecode."""

    _name = "fastps_take_split"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state["func_ir"] = state.func_id.func.fastps_ir.copy()
        return True


class SplitCompiler(CompilerBase):  # type: ignore[misc]
    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(TakeSplit, TranslateByteCode)
        passes.finalize()
        return [passes]


def compile_rule(rule: Rule, dtype: str, shape: str, clips: bool, symbol: str) -> KernelImage:
    """Object code of `rule` for elements of `dtype`.

    Parameters
    ----------
    dtype : "float32" or "float64"
    shape : a key of SHAPES; "row" for rules that depend on a row as a whole
    clips : gradients are scaled, then clipped, by the two values after the uniforms
    symbol : the name of the kernel; that of `prepare` is ``{symbol}_prepare``

    Raises CompileError. Cost: about a second and a half, and a second to import numba.
    """
    return Compilation(rule, dtype, SHAPES[shape], clips, symbol).image()


class Compilation:
    """The compilation of one rule for one dtype in one shape.

    Attributes
    ----------
    step : numba's dispatcher of the rule on elements
    """

    def __init__(self, rule: Rule, dtype: str, shape: Shape, clips: bool, symbol: str) -> None:
        self.rule, self.dtype, self.shape, self.clips, self.symbol = rule, dtype, shape, clips, symbol
        self.type, self.element = ELEMENTS[dtype]
        self.what = f"rule {rule.name} for {dtype}"
        self.function = rule.family.function
        self.elemental: dict[Any, Any] = {}  # functions, as they are called on elements
        n_slots = len(rule.family.slot_order)
        self.results = [f"r{i}" for i in range(1 + n_slots)]
        self.reads = [f"p{i}" for i in range(1 + n_slots)]  # the parameter, then the slots
        self.state = [*self.reads, *(["pulled"] if rule.family.uses_pulled else [])]
        with explained(self.what, self.function):
            names = inspect.signature(self.function).parameters.values()
            self.variable = [p.name for p in names if p.kind is not p.KEYWORD_ONLY]
            self.parts = split(self.function, self.variable, self.element, self.callee)
            self.step = self._step()
            self._check()

    def image(self) -> KernelImage:
        with explained(self.what, self.function):
            kernel = self._kernel()
            prepare = self._prepare()
        parts = {"kernel_inner": kernel, "prepare_inner": prepare}
        code = llvmir.link(self.what, at_line_of(self.function), self.symbol, self._bridge(), parts)
        return KernelImage(self.symbol, code)

    # The rule on elements

    def callee(self, function: Any) -> Any:
        """The replacement of a function that is called on elements."""
        function = functions.on_elements(function, self.dtype)
        require_known(function)
        if not is_function(function) or function in functions.EXP.values():
            return function
        if function not in self.elemental:
            inner = function.py_func if isinstance(function, CPUDispatcher) else function
            require_plain(inner)
            clone = copied(inner, inner.__globals__, inner.__closure__)
            clone.__defaults__ = tuple(
                self.element(value) if is_number(value) else value for value in inner.__defaults__ or ()
            )
            split_inner = split(inner, list(inspect.signature(inner).parameters), self.element, self.callee)
            clone.fastps_ir = split_inner.scalar  # type: ignore[attr-defined]
            self.elemental[function] = numba.njit(pipeline_class=SplitCompiler, **INNER)(clone)
        return self.elemental[function]

    def _step(self) -> Any:
        """The rule as a function of its variable arguments, followed by the uniforms."""
        names: dict[str, Any] = {}
        arguments = [name.replace(".", "_") for name in self.parts.arguments]
        exec(compile(f"def rule({', '.join(arguments)}): pass", "<fastps rule>", "exec"), names)
        stand_in = names["rule"]
        stand_in.fastps_ir = self.parts.scalar
        return numba.njit(pipeline_class=SplitCompiler, **INNER)(stand_in)

    def _check(self) -> None:
        """Compiles the rule alone, so that errors quote the user's lines, and checks what it returns."""
        if self.parts.uniforms > MAX_UNIFORMS:
            raise CompileError(
                f"{self.what}: at most {MAX_UNIFORMS} values can be the same for all elements, got "
                f"{self.parts.uniforms}; combine hyper-parameters before they meet elements{at_line_of(self.function)}"
            )
        arguments = (self.type,) * len(self.parts.arguments)
        self.step.compile(arguments)
        returned = self.step.overloads[arguments].signature.return_type
        values = list(returned) if isinstance(returned, types.BaseTuple) else [returned]
        slots = self.rule.family.slot_order
        if len(values) != 1 + len(slots):
            raise CompileError(
                f"{self.what}: expected it to return {', '.join(['the new parameter', *slots])}, got {len(values)} "
                f"value{'s' * (len(values) > 1)}{self._at_return()}"
            )
        for value in values:
            if not isinstance(value, (types.Float, types.Integer, types.Boolean)):
                raise CompileError(f"{self.what}: expected it to return numbers, got {value}{self._at_return()}")

    def _at_return(self) -> str:
        line = max((b.terminator.loc.line for b in self.parts.scalar.blocks.values()), default=0)
        return at_line(self.function.__code__.co_filename, line)

    # The functions of the object file

    def _kernel(self) -> Any:
        shape, gradient = self.shape, f"g[{self.shape.given}]"
        lines = [f"{name} = carray({name}_, 1)" for name in [*self.state, "g", *self.results]]
        lines += [f"u{i} = element(uniforms[{i}])" for i in range(self.parts.uniforms)]
        if self.clips:
            lines += [f"limit = element(uniforms[{MAX_UNIFORMS}])", f"scale = element(uniforms[{MAX_UNIFORMS + 1}])"]
            gradient = f"clip({gradient} * scale, -limit, limit)"
        alone = {1 + i for i, slot in enumerate(self.rule.family.slot_order) if slot in self.rule.family.row_slots}
        at = {name: f"{name}[{shape.state if name in self.reads else shape.given}]" for name in self.state}
        at |= {self.reads[k]: f"{self.reads[k]}[0]" for k in alone} | {MEAN_SQUARE: MEAN_SQUARE}
        slots = iter(self.reads[1:])
        variable = [
            at["p0"], gradient,
            *(at[name] if name in (PULLED, MEAN_SQUARE) else at[next(slots)] for name in self.variable[2:]),
        ]  # fmt: skip
        source = f"def kernel({', '.join(self._arguments('_'))}):\n    " + "\n    ".join(lines or ["pass"])
        source += shape.loop.format(
            fetch="; ".join(f"prefetch({name}, i + ahead)" for name in [*self.state, "g"]),
            stores=", ".join(f"{name}[{0 if k in alone else shape.given}]" for k, name in enumerate(self.results)),
            squares=squares(gradient) if self.rule.family.uses_mean_square else "",
            call=f"step({', '.join([*variable, *(f'u{i}' for i in range(self.parts.uniforms))])})",
        )
        names = {
            "carray": carray, "element": self.element, "step": self.step, "prefetch": functions.prefetch,
            "clip": numba.njit(**INNER)(functions.clip), "line": 64 // np.dtype(self.dtype).itemsize,
        }  # fmt: skip
        exec(compile(source, "<fastps kernel>", "exec"), names)
        own = {"ptr": types.CPointer(types.int64), "i64": types.int64}
        arrays = len(self.state) + 1 + len(self.results)
        signature = types.void(
            *[types.CPointer(self.type)] * arrays, *(own[kind] for _, kind in shape.arguments),
            types.CPointer(types.float64),
        )  # fmt: skip
        return numba.cfunc(signature, **OPTIONS)(names["kernel"])

    def _arguments(self, suffix: str = "") -> list[str]:
        arrays = [f"{name}{suffix}" for name in [*self.state, "g", *self.results]]
        return [*arrays, *(name for name, _ in self.shape.arguments), "uniforms"]

    def _prepare(self) -> Any:
        """`prepare(hyper, step, s)` fills in the uniforms."""
        for thing in self.parts.names.values():
            require_known(thing)
        names: dict[str, Any] = {name: jitted(thing) for name, thing in self.parts.names.items()}
        lines = [f"{ARGUMENT}step = step"]
        for i, name in enumerate(self.rule.hyper):
            value = ARGUMENT + name
            lines.append(f"{value} = hyper[{i}]")
            if name in self.rule.schedules:  # NaN: no number was configured
                names[f"schedule{i}"] = jitted(self.rule.schedules[name].function)
                lines.append(f"if {value} != {value}:\n        {value} = schedule{i}(step - 1.0)")
        source = "def prepare(hyper, step, s):\n    " + "\n    ".join([*lines, *self.parts.prepare])
        exec(compile(source, "<fastps prepare>", "exec"), names)
        doubles = types.CPointer(types.float64)
        return numba.cfunc(types.void(doubles, types.float64, doubles), **OPTIONS)(names["prepare"])

    def _bridge(self) -> str:
        own = [(kind, name) for name, kind in self.shape.arguments]
        return llvmir.bridge(self.symbol, self.state, self.results, own)


@contextmanager
def explained(what: str, function: Callable[..., Any]) -> Iterator[None]:
    """Turns numba's errors into ones that quote the user's line; numba's own stays attached as the cause."""
    try:
        yield
    except CompileError as error:
        raise error if str(error).startswith(what) else CompileError(f"{what}: {error}") from None
    except RecursionError as error:
        raise CompileError(
            f"{what} cannot be compiled: it calls a function that calls itself{at_line_of(function)}"
        ) from error
    except Exception as error:  # numba's errors, and those of its front end for unknown bytecode
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        filename = function.__code__.co_filename
        loc = getattr(error, "loc", None)
        line = loc.line if loc is not None and loc.filename == filename else None
        if line is None:
            found = re.findall(rf'File "{re.escape(filename)}", line (\d+)', text)
            line = int(found[-1]) if found else None
        where = at_line_of(function) if line is None else at_line(filename, line)
        lines = [t.strip() for t in text.splitlines()]
        reason = next((t for t in lines if t and not t.startswith(("Failed in", "No implementation of"))), "")
        reason = reason.replace(">>> ", "no implementation of ")
        raise CompileError(f"{what} cannot be compiled: {reason}{where}") from error


def jitted(thing: Any) -> Any:
    """A plain function compiled in float64, with the functions that it calls; anything else unchanged."""
    if thing is np.clip or thing is np.sign:
        thing = {np.clip: functions.clip, np.sign: functions.sign}[thing]
    if isinstance(thing, CPUDispatcher):
        thing = thing.py_func
    if not inspect.isfunction(thing):
        return thing
    require_plain(thing)
    outside = {name: jitted(value) for name, value in thing.__globals__.items() if name in thing.__code__.co_names}
    cells = tuple(CellType(jitted(cell.cell_contents)) for cell in thing.__closure__ or ())
    return numba.njit(**INNER)(copied(thing, {**thing.__globals__, **outside}, cells))


def require_known(thing: Any) -> None:
    """Raises CompileError for a function of `math` or numpy that numba lacks: its own message has internal names."""
    if isinstance(thing, (BuiltinFunctionType, np.ufunc)):
        cpu_target.typing_context.refresh()
        try:
            cpu_target.typing_context.resolve_value_type(thing)
        except ValueError:
            raise CompileError(
                f"it calls `{thing.__name__}`, which numba does not have; write it with other functions"
            ) from None


def require_plain(function: Any) -> None:
    """Raises CompileError for a function with keyword-only arguments, which numba silently takes for others."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
            raise CompileError(
                f"function {function.__name__}, which a rule calls: expected `{name}` to be a plain argument, neither "
                f"`*` nor `/`{at_line_of(function)}"
            )


def copied(function: Any, outside: dict[str, Any], cells: tuple[Any, ...] | None) -> FunctionType:
    clone = FunctionType(function.__code__, outside, function.__name__, function.__defaults__, cells or None)
    clone.__kwdefaults__ = function.__kwdefaults__
    return clone
