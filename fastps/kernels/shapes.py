"""The shapes of kernels: their arguments and their loops. A further shape is one more entry of `SHAPES`.

Every kernel computes out of place: it reads parameters, slots and gradients and writes the new parameters and slots to
other arrays, a session's redo block, from which the core copies them into place (csrc/dense.h). So one shape serves
both push and push_pull.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """How a kernel is called and what its loop looks like.

    Attributes
    ----------
    arguments : its own ones, between the arrays and the uniforms, each with its type in LLVM
    loop : Python; {stores} are the new values of the elements i, {call} is the rule's call, {fetch} prefetches the
        elements `i + ahead`, {squares} computes the row's mean of squares if the rule uses it
    state, given : the index of the rule's element i in parameters and slots, and in gradients and results
    """

    arguments: tuple[tuple[str, str], ...]
    loop: str
    state: str
    given: str


SHAPES = {
    # fps_kernel in csrc/dense.h: n contiguous elements. If they come from memory, the next block is prefetched while
    # this one is computed; otherwise memory would be idle while the core copies results. Adam, 40 MB: 0.93 of torch's
    # fused step with it, 1.08 without, blocks of 2 KiB. In parts of 64: with 32 it took 0.99, and LLVM unrolls loops of
    # 16 before it can vectorise them. If they come from a cache it would cost up to a half: then `ahead` is 0.
    "dense": Shape(
        (("n", "i64"), ("ahead", "i64")),
        """
    if ahead > 0:
        for start in range(0, n, 64):
            stop = min(start + 64, n)
            for i in range(start, stop, line):
                {fetch}
            for i in range(start, stop):
                {stores} = {call}
    else:
        for i in range(n):
            {stores} = {call}
""",
        "i",
        "i",
    ),
    # The same for a rule that depends on a row of a table as a whole: its slots of one value per row are at 0, and the
    # sum of squares has eight partial sums, the same on every processor.
    "row": Shape(
        (("n", "i64"), ("ahead", "i64")),
        """
    {squares}
    for i in range(n):
        {stores} = {call}
""",
        "i",
        "i",
    ),
}

SQUARES = """
    whole = n - n % 8
    q0 = q1 = q2 = q3 = q4 = q5 = q6 = q7 = element(0)
    for i in range(0, whole, 8):
        {parts}
    for i in range(whole, n):
        q0 += {gradient} * {gradient}
    mean_square = (((q0 + q1) + (q2 + q3)) + ((q4 + q5) + (q6 + q7))) / element(max(n, 1))
"""


def squares(gradient: str) -> str:
    """The loop that computes the mean of squares of a row's gradient; `gradient` is an expression of `i`."""
    terms = [gradient.replace("i]", f"i + {k}]") for k in range(8)]
    parts = "; ".join(f"q{k} += {term} * {term}" for k, term in enumerate(terms))
    return SQUARES.format(parts=parts, gradient=gradient)
