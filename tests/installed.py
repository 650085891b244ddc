"""Runs the unit tests on the fastps that is installed, such as a wheel, and not on the checkout beside them.

    python tests/installed.py [options of pytest]

pytest puts the folder above `tests` in front of all others, so that a checkout's own `fastps/` would be what is tested.
The tests are copied to a temporary folder that has none; those that read the checkout itself have no say about a wheel
and are left out. The unit tests start no Ray. Called by `make wheel-test` and, for each wheel, by cibuildwheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
COPIED = ("tests", "bench", "pyproject.toml")  # tests of the benchmarks import bench
OF_THE_CHECKOUT = (
    "test_documents.py", "test_imports.py", "test_layers_of_c.py", "test_packaging.py", "test_project_files.py",
)  # fmt: skip
WHERE = "import fastps._core, os; print(os.path.dirname(fastps.__file__))"


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="fastps-installed-") as folder:
        for name in COPIED:
            source, target = CHECKOUT / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "results"))
            else:
                shutil.copy(source, target)
        # -P: without the working directory on the path of modules.
        package = subprocess.run([sys.executable, "-P", "-c", WHERE], cwd=folder, capture_output=True, text=True)
        if package.returncode != 0:
            print(package.stderr, file=sys.stderr)
            return package.returncode
        installed = Path(package.stdout.strip())
        print(f"testing {installed} with Python {sys.version.split()[0]}", flush=True)
        if installed.is_relative_to(CHECKOUT / "fastps") or installed == CHECKOUT / "fastps":
            print("that is the checkout: install a wheel, and unset PYTHONPATH", file=sys.stderr)
            return 2
        ignored = [f"--ignore=tests/unit/{name}" for name in OF_THE_CHECKOUT]
        pytest = [sys.executable, "-m", "pytest", "tests/unit", "-p", "no:cacheprovider", *ignored, *options]
        return subprocess.run(pytest, cwd=folder, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
