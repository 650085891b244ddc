"""What pyproject.toml, the Makefile and the documents say of each other, against what there is."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.__main__ import main as benchmarks
from fastps.cli import COMMANDS
from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TEXTS = [
    ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md")),
    *(path for folder in ("fastps", "bench", "examples") for path in sorted((ROOT / folder).rglob("*.py"))),
]  # fmt: skip
# Packages by the names that are imported, where these differ and the package may not be installed.
NAMED = {"sklearn": "scikit-learn", "surprise": "scikit-surprise", "torch": "torch", "ray": "ray"}


def packages(*requirements):
    """The names in a list of requirements, those of fastps's own extras resolved."""
    found = set()
    for requirement in requirements:
        own = re.fullmatch(r"fastps\[(\w+)\]", requirement)
        found |= packages(*EXTRAS[own[1]]) if own else {re.match(r"[\w.-]+", requirement)[0].replace("_", "-").lower()}
    return found


BASE = packages(*PROJECT["dependencies"])
ALL = BASE | packages(*(one for extra in EXTRAS.values() for one in extra))


# What each program needs; what they share may need only what all of them have.
PROGRAMS = {"demo": packages(*EXTRAS["demo"], *EXTRAS["plot"]), "recommend": packages(*EXTRAS["recommend"])}
# Modules that are loaded where a command has found the package, and else has said how to install it.
OPTIONAL = {
    "fastps/checkpoint/state_dict.py": {"torch"},
    "fastps/torch/optimizer.py": {"torch"},
    "fastps/torch/parameters.py": {"torch"},
}


def declared_for(path):
    """What somebody has who runs a file: whose packages it may import."""
    parts = path.relative_to(ROOT).parts
    if parts[0] != "fastps":
        return ALL
    if parts[1] != "programs":
        return BASE | OPTIONAL.get(str(path.relative_to(ROOT)), set())
    return BASE | PROGRAMS.get(parts[2], set.intersection(*PROGRAMS.values()))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", ["fastps", "bench", "examples", "tests"])
def test_every_package_that_is_imported_is_declared(folder):
    known, own = importlib.metadata.packages_distributions(), {"fastps", "bench", "tests"}
    undeclared = set()
    for path in (ROOT / folder).rglob("*.py"):
        for name in set(imported(path)) - set(sys.stdlib_module_names) - own - {"_multiprocessing"}:
            package = NAMED.get(name) or known.get(name, [name])[0]
            if package.replace("_", "-").lower() not in declared_for(path):
                undeclared.add((str(path.relative_to(ROOT)), package))
    assert undeclared == set()


def test_what_texts_tell_to_type_is_there():
    for path in TEXTS:
        check_what_it_tells_to_type(path.read_text(), path.relative_to(ROOT))


def check_what_it_tells_to_type(text, path):
    assert "fastps[" not in text.replace("fastps[extra]", ""), (
        f"{path}: the package index has no fastps: say '.[extra]' of a checkout"
    )
    for extra in re.findall(r"'\.\[([\w,]+)\]'", text):
        assert set(extra.split(",")) <= set(EXTRAS), (path, extra)
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for verb in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)  ", text, re.MULTILINE):
        assert set(filter(None, verb)) <= verbs, (path, verb)
    for program in re.findall(r"python -m fastps ([a-z]+)|[`\n]fastps ([a-z]+)", text):
        assert set(filter(None, program)) <= {command.name for command in COMMANDS}, (path, program)
    for program in re.findall(r"python -m bench ([a-z]+)", text):
        assert program in benchmarks.commands, (path, program)


def test_a_folder_of_the_same_name_beside_a_script_does_not_hide_the_package(tmp_path):
    """As a checkout called fastps does, for a script in the folder above it: where fastps is installed the way that
    `make` does it, the package is found all the same."""
    (tmp_path / "fastps" / "docs").mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text("import json, fastps\nprint(json.dumps([str(fastps.rule), fastps.__file__]))")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr}\ninstalled before this was so? make .venv/ready installs it anew"
    assert json.loads(done.stdout)[1].endswith("fastps/__init__.py")
