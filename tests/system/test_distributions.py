"""What the source distribution and the wheel hold, built as pip builds them but with packages that are installed."""

import email
import fnmatch
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IGNORED = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()] + [".git"]
# What setuptools writes besides.
WRITTEN = ["PKG-INFO", "setup.cfg", "fastps.egg-info/*"]


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def build(kind, source, target):
    """Calls the build backend in `source`, the core without optimisation. Answers the file in `target`."""
    done = subprocess.run(
        [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_{kind}({str(target)!r})"],
        cwd=source, capture_output=True, text=True, timeout=170, check=False,
        env={**os.environ, "FASTPS_DEBUG": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = target.iterdir()
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The checkout without what git ignores: a build writes into its folder."""
    folder = tmp_path_factory.mktemp("checkout") / "fastps"
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*IGNORED))


@pytest.fixture(scope="module")
def source(checkout, tmp_path_factory):
    """A source distribution, unpacked."""
    files = files_in(checkout)
    with tarfile.open(build("sdist", checkout, tmp_path_factory.mktemp("sdist"))) as archive:
        folder = tmp_path_factory.mktemp("source")
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return files, unpacked


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """A wheel, built from the source distribution alone."""
    with zipfile.ZipFile(build("wheel", source[1], tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def test_a_source_distribution_holds_the_whole_checkout(source):
    files, unpacked = source
    held = {name for name in files_in(unpacked) if not any(fnmatch.fnmatch(name, pattern) for pattern in WRITTEN)}
    assert held == files


def test_a_wheel_holds_the_modules_their_types_and_the_compiled_core(source, wheel):
    names = {name for name in wheel.namelist() if not name.startswith(f"fastps-{PROJECT['version']}.dist-info/")}
    (core,) = (name for name in names if name.endswith(".so"))
    assert core.startswith("fastps/_core/core.")
    modules = {name for name in source[0] if name.startswith("fastps/") and name.endswith(".py")}
    assert names == modules | {core, "fastps/py.typed", "fastps/_core/core.pyi"}


def test_a_wheel_says_what_it_is(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["License-Expression"] == PROJECT["license"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    folder = name.removesuffix("METADATA")
    assert wheel.read(f"{folder}licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
