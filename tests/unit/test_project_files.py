"""The files at the root that people and programs look for, and what they say of each other."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests import installed

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# https://www.apache.org/licenses/LICENSE-2.0.txt
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def declared_pythons():
    """The versions that pyproject.toml promises to people who look for the package."""
    names = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in PROJECT["classifiers"])
    return [name[1] for name in names if name]


def oldest_python():
    return re.fullmatch(r">=(3\.\d+)", PROJECT["requires-python"])[1]


def workflow(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())


@pytest.mark.parametrize(
    "name",
    [
        ".ci/run", ".clang-format", ".editorconfig", ".github/dependabot.yml", ".github/workflows/ci.yml",
        ".github/workflows/wheels.yml", ".gitignore", ".pre-commit-config.yaml", "ARCHITECTURE.md", "CHANGELOG.md",
        "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "SECURITY.md", "fastps/py.typed",
        "pyproject.toml",
    ],
)  # fmt: skip
def test_a_file_that_people_or_programs_look_for_is_there(name):
    assert (ROOT / name).is_file()


def test_the_licence_is_the_text_that_pyproject_names():
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE


def test_every_folder_of_the_package_is_explained_to_contributors():
    folders = {path.parent.name for path in (ROOT / "fastps").glob("*/__init__.py")}
    explained = set(re.findall(r"^\| `fastps/(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    assert folders - explained == set(), "add a row to the table of folders in CONTRIBUTING.md"


def test_the_oldest_python_is_the_same_everywhere():
    assert declared_pythons()[0] == oldest_python() == PYPROJECT["tool"]["mypy"]["python_version"]


def test_continuous_integration_runs_pythons_that_pyproject_allows_the_oldest_among_them():
    job = workflow("ci.yml")["jobs"]["test"]
    pythons = job["strategy"]["matrix"]["python"]
    assert all(isinstance(version, str) for version in pythons), "3.10 without quotes is the number 3.1"
    assert set(pythons) <= set(declared_pythons())
    assert oldest_python() in pythons
    assert {"run": ".ci/run"} in job["steps"]


def test_there_are_wheels_for_all_declared_pythons_and_no_others():
    settings = PYPROJECT["tool"]["cibuildwheel"]
    assert settings["build"] == [f"cp{version.replace('.', '')}-*" for version in declared_pythons()]
    assert "{project}/tests/installed.py" in settings["test-command"]
    assert set(settings["test-extras"]) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_well_formed_and_has_no_more_rights_than_it_needs(path):
    found = yaml.safe_load(path.read_text())
    assert set(found) >= {"name", True, "permissions", "jobs"}  # YAML reads `on` as a truth value
    assert found["permissions"] == {"contents": "read"}
    for name, job in found["jobs"].items():
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(found["jobs"])
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), f"{name}: {step}"
            assert "@" in step.get("uses", "@"), f"{name}: an action without a version"
        if "permissions" in job:
            assert job["permissions"] == {"id-token": "write"}
            assert "refs/tags/v" in job["if"], f"{name} has the right to publish at any time"


def test_a_change_of_what_wheels_are_built_from_builds_them():
    for path in workflow("wheels.yml")[True]["pull_request"]["paths"]:
        assert (ROOT / path.removesuffix("/**")).exists(), path


def test_hooks_download_nothing_and_call_what_the_extra_for_tests_installs():
    extra = {re.match(r"[\w-]+", line)[0] for line in PROJECT["optional-dependencies"]["test"]}
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        assert program.startswith(".venv/bin/")
        assert program.removeprefix(".venv/bin/") in extra


def test_tests_that_read_the_checkout_are_not_run_on_what_is_installed():
    reading = {path.name for path in (ROOT / "tests" / "unit").rglob("test_*.py") if "parents[2]" in path.read_text()}
    assert reading == set(installed.OF_THE_CHECKOUT)


def test_no_file_of_code_has_more_than_450_lines():
    files = [
        path
        for folder, pattern in (("fastps", "**/*.p*"), ("bench", "**/*.py"), ("csrc", "*.[ch]"))
        for path in (ROOT / folder).glob(pattern)
        if path.suffix in {".py", ".pyi", ".pyx", ".pxi", ".pxd", ".c", ".h"}
    ]
    assert len(files) > 200
    assert {str(path): n for path in files if (n := len(path.read_text().splitlines())) > 450} == {}
