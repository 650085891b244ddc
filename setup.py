"""Builds the compiled core.

Switches, as environment variables:
    FASTPS_DEBUG=1            no optimisation, assertions on
    FASTPS_SANITIZE=address   (or undefined, thread; comma-separated) instruments the core; preload the sanitizer's
                              runtime to import it: LD_PRELOAD=$(gcc -print-file-name=libasan.so) python ...
"""

import os
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

debug = os.environ.get("FASTPS_DEBUG") == "1"
sanitizers = [f"-fsanitize={name}" for name in os.environ.get("FASTPS_SANITIZE", "").split(",") if name]

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
        *(["-UNDEBUG"] if debug else []),
        *sanitizers,
    ],
    extra_link_args=["-pthread", *sanitizers],
)

setup(ext_modules=cythonize([core], build_dir="build/cython"))
