"""Packages that are missing, and the command that installs them."""

import shlex
import subprocess
import sys

from fastps.machine.packages import install, missing


def test_the_command_that_installs_is_one_of_the_python_that_runs():
    command = shlex.split(install("scikit-learn", "rich"))
    assert command[0] == sys.executable
    assert command[1:] == ["-m", "pip", "install", "scikit-learn", "rich"]
    assert subprocess.run([*command[:3], "--version"], capture_output=True, check=False).returncode == 0


def test_missing_packages_are_found_by_the_names_of_their_modules():
    assert missing({"json": "nothing", "no_such_module": "no-such-package"}) == ["no-such-package"]
