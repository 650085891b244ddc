"""The python blocks of each document, one after the other in one program, as somebody copies them from the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^(<!-- not run: .* -->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKED = 2  # blocks of all documents that do not run: an excerpt of a file of the package, and what needs torch


def program_of(text):
    """The blocks of a page that run, each in the lines that it has on the page, and how many do not run."""
    lines, skipped = [], 0
    for block in BLOCK.finditer(text):
        if block[1]:
            skipped += 1
            continue
        lines += [""] * (text.count("\n", 0, block.start(2)) - len(lines)) + block[2].splitlines()
    return "\n".join(lines), skipped


def programs():
    """The programs of all documents by page, and how many blocks of them do not run."""
    found, marked = {}, 0
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]):
        program, skipped = program_of(path.read_text())
        marked += skipped
        if program:
            found[str(path.relative_to(ROOT))] = program
    return found, marked


def test_a_program_has_the_lines_of_its_page_and_no_block_that_is_marked():
    page = "A\n```python\nx = 1\n```\n<!-- not run: an excerpt -->\n```python\ny\n```\n```\nz\n```\n```python\nw = 2\n"
    program, skipped = program_of(page + "```\n")
    assert program.splitlines() == ["", "", "x = 1", *[""] * 9, "w = 2"]
    assert page.splitlines()[12] == "w = 2"
    assert skipped == 1


def test_the_documents_have_programs():
    found, marked = programs()
    assert {"README.md", "docs/consistency.md", "docs/rules.md", "docs/tables.md"} <= {*found}
    assert marked == MARKED


@pytest.mark.parametrize(("page", "program"), programs()[0].items(), ids=programs()[0])
def test_the_programs_of_a_document_run(one_node, tmp_path, page, program):
    path = tmp_path / f"{Path(page).stem}.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, path],
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
        env={**os.environ, "RAY_ADDRESS": one_node.address},
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
