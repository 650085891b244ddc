"""Builds the compiled core.

Switches, as environment variables:
    FASTPS_DEBUG=1            no optimisation, assertions on
    FASTPS_SANITIZE=address   (or undefined, thread; comma-separated) instruments the core; preload the sanitizer's
                              runtime to import it: LD_PRELOAD=$(gcc -print-file-name=libasan.so) python ...
"""

import os
import shlex
import subprocess
import sysconfig
import tempfile
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("FASTPS_DEBUG") == "1"
sanitizers = [f"-fsanitize={name}" for name in os.environ.get("FASTPS_SANITIZE", "").split(",") if name]

WHOLE = "-flto=auto"  # the core is optimised as one file: a small push takes 0.84 of the time


def optimises_whole() -> bool:
    """Whether the compiler and its linker can do that: clang needs a plugin."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "one.c")
        source.write_text("int main(void) { return 0; }\n")
        made = [*compiler, "-O3", WHOLE, str(source), "-o", str(Path(folder, "one"))]
        return subprocess.run(made, capture_output=True).returncode == 0


whole = [WHOLE] if not debug and not sanitizers and optimises_whole() else []

core = Extension(
    "fastps._core.core",
    sources=["fastps/_core/core.pyx", *sorted(glob("csrc/*.c"))],
    depends=[*glob("csrc/*.h"), *glob("fastps/_core/*.px[id]")],
    include_dirs=["csrc", numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
    extra_compile_args=[
        "-std=c11",
        "-O0" if debug else "-O3",
        "-g",
        "-fno-omit-frame-pointer",
        "-ffp-contract=off",  # the same bits from every compiler
        "-fno-math-errno",  # a square root is an instruction
        "-fvisibility=hidden",
        "-pthread",
        *whole,
        *(["-UNDEBUG"] if debug else []),
        *sanitizers,
    ],
    extra_link_args=["-pthread", *sanitizers, *(["-O3", *whole] if whole else [])],
)

setup(ext_modules=cythonize([core], build_dir="build/cython"))
