"""Splits a scalar update rule into what a push computes once and what every element needs.

Works on numba's representation of the function's bytecode, so it needs no source text: a rule may come from a REPL, an
`exec` or another process. A value is *uniform* when it depends on constants, hyper-parameters and `step` alone. Uniform
values become a Python function of their own, `prepare`, which computes them in float64; in the rule they are replaced
by arguments of the elements' dtype. So no literal, integer or hyper-parameter promotes float32 arithmetic to float64,
and nothing uniform is left in the loop.

Tried: LLVM alone, which does hoist uniform values, but to the start of each block: two powers of Adam cost 4 % of a
block of 1,024 elements; and `1 - beta2` is then rounded to float32 before the subtraction, an error of 5e-5.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
from numba.core import compiler, errors, ir
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.registry import CPUDispatcher

DIVISIONS = {operator.truediv: operator.mul, operator.itruediv: operator.imul}
POWERS = {operator.pow, operator.ipow}
ARGUMENT = "h_"  # prefix of the names of arguments in `prepare`, to tell them from its own names
# Arguments that stay integers, such as loop bounds.
TAKES_INTEGERS = (range, int, round, len)


@dataclass
class Split:
    """A rule in two parts.

    Attributes
    ----------
    scalar : the rule's representation with arguments (p, g, slots..., uniforms...)
    arguments : the names of these
    uniforms : how many there are
    prepare : lines of Python that set `s[0]`, `s[1]`, ... from the uniform arguments, whose names begin with `h_`
    names : the names that those lines refer to
    """

    scalar: ir.FunctionIR
    arguments: list[str]
    uniforms: int = 0
    prepare: list[str] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)


def split(function: Callable[..., Any], variable: list[str], element: type, callee: Callable[[Any], Any]) -> Split:
    """Splits `function`, whose arguments are the `variable` ones and, besides, uniform ones.

    `element` makes constants of the elements' dtype; `callee` gives the replacement of a function for elements.
    """
    return _Splitter(compiler.run_frontend(function), variable, element, callee).run()


class _Splitter:
    def __init__(
        self, function: ir.FunctionIR, variable: list[str], element: type, callee: Callable[[Any], Any]
    ) -> None:
        self.ir, self.variable, self.element, self.callee = function, variable, element, callee
        self.assigned: dict[str, list[ir.Assign]] = {}
        # A function that is called in a branch may not terminate for values that do not enter the branch.
        graph = compute_cfg_from_blocks(self.ir.blocks)
        always = graph.post_dominators()[graph.entry_point()]
        self.guarded: set[str] = set()  # what is assigned in a branch
        for label, block in self.ir.blocks.items():
            for statement in block.body:
                if isinstance(statement, ir.Assign):
                    self.assigned.setdefault(statement.target.name, []).append(statement)
                    if label not in always:
                        self.guarded.add(statement.target.name)
        self.uniform: dict[str, bool] = {}
        self.split = Split(function, list(variable))
        self.lines: dict[str, str] = {}  # how `prepare` names a uniform variable
        self.known: dict[str, Any] = self.split.names.copy()  # what `prepare` computes from constants alone
        self.passed: dict[str, str] = {}  # the argument that brings a uniform value, by its name in `prepare`

    def _statements(self) -> list[Any]:
        return [statement for block in self.ir.blocks.values() for statement in block.body]

    # What is uniform

    def is_uniform(self, name: str) -> bool:
        if name not in self.uniform:
            self.uniform[name] = False  # a variable that depends on itself is not
            statements = self.assigned.get(name, [])
            self.uniform[name] = (
                len(statements) == 1
                and self._is_uniform_value(statements[0].value)
                and not (name in self.guarded and self._calls_a_function(statements[0].value))
            )
        return self.uniform[name]

    def _is_uniform_value(self, value: Any) -> bool:
        if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):
            return True
        if isinstance(value, ir.Arg):
            return value.name not in self.variable
        if isinstance(value, ir.Var):
            return self.is_uniform(value.name)
        if isinstance(value, ir.Expr) and value.op in ("binop", "inplace_binop", "unary", "call", "getattr"):
            if value.op == "call" and (value.vararg or value.varkwarg or self.object_of(value.func) in (bool, range)):
                return False  # conditions are evaluated at their branch; a range is no number
            return all(self.is_uniform(v.name) for v in value.list_vars())
        return False

    def _calls_a_function(self, value: Any) -> bool:
        return isinstance(value, ir.Expr) and value.op == "call" and is_function(self.object_of(value.func))

    def object_of(self, variable: ir.Var) -> Any:
        """The Python object that a variable is known to hold, or None."""
        statements = self.assigned.get(variable.name, [])
        if len(statements) != 1:
            return None
        value = statements[0].value
        if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):
            return value.value
        if isinstance(value, ir.Var):
            return self.object_of(value)
        if isinstance(value, ir.Expr) and value.op == "getattr":
            return getattr(self.object_of(value.value), value.attr, None)
        return None

    # `prepare`

    def python(self, variable: ir.Var) -> str:
        """The name of a uniform variable in `prepare`, to which its computation is added."""
        name = variable.name
        if name not in self.lines:
            text = self._text(self.assigned[name][0].value)
            self.lines[name] = text if text.isidentifier() else self._line(text)
        return self.lines[name]

    def _line(self, text: str) -> str:
        """Adds a line to `prepare`; returns the name of its value."""
        name = f"v{len(self.split.prepare)}"
        self.split.prepare.append(f"{name} = {text}")
        # The text consists of names given here, and calls. A NameError says that it depends on an argument; other
        # errors are left to float64 at run time, which has inf and NaN.
        with suppress(NameError, ArithmeticError, ValueError):
            self.known[name] = eval(text, {"__builtins__": {}}, self.known)
        return name

    def _text(self, value: Any) -> str:
        if isinstance(value, ir.Arg):
            return ARGUMENT + str(value.name)
        if isinstance(value, ir.Var):
            return self.python(value)
        if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):
            return self._named(value.value)
        if value.op == "getattr":
            thing = getattr(self.object_of(value.value), value.attr, None)
            return f"{self.python(value.value)}.{value.attr}" if thing is None else self._named(thing)
        if value.op == "call":
            arguments = [self.python(a) for a in value.args] + [f"{k}={self.python(a)}" for k, a in value.kws]
            return f"{self.python(value.func)}({', '.join(arguments)})"
        function = self._named(value.immutable_fn if value.op == "inplace_binop" else value.fn)
        return f"{function}({', '.join(self.python(v) for v in value.list_vars())})"

    def _named(self, thing: Any) -> str:
        name = f"k{len(self.split.names)}"
        self.split.names[name] = self.known[name] = thing
        return name

    def pass_in(self, text: str) -> Any:
        """A constant, or the argument by which the rule gets the value of this name in `prepare`."""
        if is_number(self.known.get(text)) or isinstance(self.known.get(text), bool):
            return ir.Const(self.element(self.known[text]), self.ir.loc)
        if text not in self.passed:
            self.passed[text] = f"uniform.{self.split.uniforms}"
            self.split.prepare.append(f"s[{self.split.uniforms}] = {text}")
            self.split.uniforms += 1
        index = len(self.variable) + int(self.passed[text].split(".")[1])
        return ir.Arg(self.passed[text], index, self.ir.loc)

    # The rule

    def run(self) -> Split:
        needed: dict[str, Any] = {}  # uniform variables that elements need, and what to assign to them instead
        for statement in self._statements():
            self._refuse(statement)
            if isinstance(statement, ir.Assign) and self.is_uniform(statement.target.name):
                continue
            self._rewrite(statement, needed)
        for block in self.ir.blocks.values():
            block.body = [s for s in block.body if self._keep(s, needed)]
        self._assign_first(needed)
        names = [f"uniform.{i}" for i in range(self.split.uniforms)]
        self.ir.arg_names = self.split.arguments = [*self.variable, *names]
        self.ir.arg_count = len(self.split.arguments)
        return self.split

    def _refuse(self, statement: Any) -> None:
        if isinstance(statement, (ir.Raise, ir.StaticRaise)):
            raise errors.TypingError("it can raise an exception; compute a value for every input", loc=statement.loc)
        value = statement.value if isinstance(statement, ir.Assign) else None
        if isinstance(value, ir.Global) and value.value is ir.UNDEFINED:
            raise errors.TypingError(f"name '{value.name}' is not defined", loc=statement.loc)

    def _keep(self, statement: Any, needed: dict[str, Any]) -> bool:
        if isinstance(statement, ir.Assign):
            return not self.is_uniform(statement.target.name)
        return not (isinstance(statement, ir.Del) and (statement.value in needed or self.is_uniform(statement.value)))

    def _assign_first(self, needed: dict[str, Any]) -> None:
        """Defines the uniform values in the first block: any block may need them."""
        first = self.ir.blocks[min(self.ir.blocks)]
        first.body[:0] = [
            ir.Assign(value, exact(first.scope, name, self.ir.loc), self.ir.loc) for name, value in needed.items()
        ]

    def _rewrite(self, statement: Any, needed: dict[str, Any]) -> None:
        value = statement.value if isinstance(statement, ir.Assign) else None
        if isinstance(value, ir.Arg):
            if value.name in self.variable:
                statement.value = ir.Arg(value.name, self.variable.index(value.name), value.loc)
            else:  # a hyper-parameter that is assigned to again
                statement.value = self.pass_in(ARGUMENT + value.name)
            return
        if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):  # a variable with several values
            statement.value = self._constant(value.value, value)
            return
        if isinstance(value, ir.Expr) and value.op == "call":
            self._rewrite_call(value, needed)
            return
        keep_exponent = None
        if isinstance(value, ir.Expr) and value.op in ("binop", "inplace_binop"):
            if value.fn in DIVISIONS and self.is_uniform(value.rhs.name):
                self._multiply_instead(statement, needed)
                return
            exponent = self.object_of(value.rhs)
            if value.fn in POWERS and isinstance(exponent, int) and exponent >= 0:
                keep_exponent = value.rhs.name  # x**2 is x * x; numba's power with a negative one can raise
        for variable in statement.list_vars():
            if self.is_uniform(variable.name) and not isinstance(statement, ir.Del):
                needed[variable.name] = (
                    self._as_it_is(variable) if variable.name == keep_exponent else self._element(variable)
                )

    def _rewrite_call(self, call: ir.Expr, needed: dict[str, Any]) -> None:
        function = self.object_of(call.func)
        if self.is_uniform(call.func.name):
            name = getattr(function, "__name__", call.func.name)
            needed[call.func.name] = ir.Global(name, self.callee(function), call.loc)
        for variable in [*call.args, *(v for _, v in call.kws)]:
            if self.is_uniform(variable.name):
                as_it_is = function in TAKES_INTEGERS
                needed[variable.name] = self._as_it_is(variable) if as_it_is else self._element(variable)

    def _multiply_instead(self, statement: ir.Assign, needed: dict[str, Any]) -> None:
        """x / uniform is x * (1 / uniform): the reciprocal is computed once a push, in float64."""
        value = statement.value
        name = self._line(f"{self._named(operator.truediv)}({self._named(1.0)}, {self.python(value.rhs)})")
        reciprocal = f"$reciprocal.{name}"
        self.uniform[reciprocal] = True
        needed[reciprocal] = self.pass_in(name)
        factor = ir.Var(value.rhs.scope, reciprocal, value.loc)
        if value.op == "binop":
            statement.value = ir.Expr.binop(operator.mul, value.lhs, factor, value.loc)
        else:
            statement.value = ir.Expr.inplace_binop(operator.imul, operator.mul, value.lhs, factor, value.loc)
        if self.is_uniform(value.lhs.name):
            needed[value.lhs.name] = self._element(value.lhs)

    def _element(self, variable: ir.Var) -> Any:
        thing = self.object_of(variable)
        if is_number(thing):
            return ir.Const(self.element(thing), variable.loc)
        if thing is not None:
            return ir.Global(variable.name, thing, variable.loc)
        return self.pass_in(self.python(variable))

    def _as_it_is(self, variable: ir.Var) -> Any:
        thing = self.object_of(variable)
        return self._element(variable) if thing is None else ir.Const(thing, variable.loc)

    def _constant(self, thing: Any, value: Any) -> Any:
        return ir.Const(self.element(thing), value.loc) if is_number(thing) else value


def exact(scope: Any, name: str, loc: Any) -> ir.Var:
    """The variable of exactly this name: `get_or_define` returns the newest version of one that is assigned again."""
    try:
        return scope.get_exact(name)
    except errors.NotDefinedError:
        return scope.define(name, loc)


def is_number(thing: Any) -> bool:
    return isinstance(thing, (int, float, np.number)) and not isinstance(thing, bool)


def is_function(thing: Any) -> bool:
    """A function that a rule may call and that is compiled with it."""
    return isinstance(thing, (FunctionType, CPUDispatcher))
