"""What the documents say of files and names, against the checkout."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
DOCUMENTS = [
    *(ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("csrc/README.md")),
]
FOLDERS = ("bench", "csrc", "docs", "examples", "fastps", "tests")
MAX_LINES = 200


def prose(text):
    """The text without its fenced blocks, which quote programs and output."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def paths_in(text):
    """(path, the folder that its line names first or None) of what looks like a file or folder of the repository."""
    for line in prose(text).splitlines():
        words = [word.strip(",;") for span in re.findall(r"`([^`]+)`", line) for word in span.split()]
        words += re.findall(r"\]\(([^)#]+)\)", line)
        folder = next((word for word in words if word.endswith("/") and word.split("/")[0] in FOLDERS), None)
        for word in words:
            if word.startswith(("/", "~", "http", ".venv", "build/")) or re.search(r"[<>=*:]", word):
                continue
            path = word.removeprefix("../").removeprefix("./")
            in_folder = "/" in path and path.split("/")[0] in (*FOLDERS, ".github", ".ci")
            if in_folder or re.fullmatch(r"[\w/.-]+\.(md|toml|py|pyx|pxi|c|h)|LICENSE|Makefile", word):
                yield word, folder


def names_in(text):
    """The identifiers of the code that a text names, without what is in front of the last dot."""
    for span in re.findall(r"`([^`\n]+)`", prose(text)):
        if re.fullmatch(r"[A-Za-z_][\w.]*", span) and not re.search(r"\.(py|md|c|h|pxi)$", span):
            yield span.split(".")[-1]


def exists(word, folder, document):
    """From the root, from the document, or in the folder that the same line names."""
    places = [ROOT, document.parent, *([ROOT / folder] if folder else [])]
    return any((place / word).exists() for place in places)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_in_a_document_exists(document):
    found = paths_in(document.read_text())
    assert [word for word, folder in found if not exists(word, folder, document)] == []


def test_paths_in_a_document_are_found():
    text = "See [here](docs/rules.md), `LICENSE`, `.venv/bin/pytest tests/unit -k adam`; not `/proc/self`, `~/x`."
    assert [word for word, _ in paths_in(text)] == ["LICENSE", "tests/unit", "docs/rules.md"]
    assert list(paths_in("| `csrc/` | `lock.c` |")) == [("csrc/", "csrc/"), ("lock.c", "csrc/")]


def test_the_architecture_fits_a_sitting():
    assert len(ARCHITECTURE.read_text().splitlines()) <= MAX_LINES


def test_every_name_of_the_code_in_the_architecture_is_in_the_code():
    sources = [
        path.read_text()
        for folder, pattern in (("fastps", "*.p*"), ("csrc", "*.[ch]"), ("bench", "*.py"))
        for path in (ROOT / folder).rglob(pattern)
        if path.suffix in (".py", ".pyx", ".pxi", ".c", ".h")
    ]
    known = set(re.findall(r"\w+", "\n".join(sources)))
    assert set(names_in(ARCHITECTURE.read_text())) - known == set()


def glossary():
    """The rows of the glossary: (term, meaning, file)."""
    section = re.search(r"^## Glossary\n(.*?)^## ", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return rows[2:]


def test_every_term_of_the_glossary_has_a_meaning_and_a_file_that_exists():
    rows = glossary()
    assert len(rows) > 20
    for term, meaning, file in rows:
        assert term
        assert meaning
        assert re.fullmatch(r"`[^`]+`", file), term
        assert (ROOT / file.strip("`")).is_file(), f"{term}: {file}"


def test_every_term_of_the_glossary_is_there_once():
    terms = [term for term, _, _ in glossary()]
    assert sorted(set(terms)) == sorted(terms)


def test_every_folder_of_the_package_is_in_the_code_map():
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "fastps").glob("*/__init__.py")}
    mapped = set(re.findall(r"^\| `(fastps/\w+)/` \|", ARCHITECTURE.read_text(), re.MULTILINE))
    assert mapped == folders
