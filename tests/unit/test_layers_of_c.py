"""Which file of the C core may include which: csrc/README.md draws the lines, and every file is held to them."""

import re
from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"
FILES = sorted(CSRC.glob("*.[ch]"))


def layer_of_each_part():
    lines = re.findall(r"^\| ((?:`\w+` ?)+)\|", (CSRC / "README.md").read_text(), re.M)
    return {part: layer for layer, line in enumerate(lines) for part in re.findall(r"\w+", line)}


def included_by(file):
    return set(re.findall(r'^#include "(\w+)\.h"', file.read_text(), re.M)) - {file.stem}


def defines(source, name):
    return source.exists() and re.search(rf"^\w[^\n;]*\b{name}\([^;{{]*\)\s*\{{", source.read_text(), re.M)


def test_every_part_of_the_core_has_its_place_in_one_layer():
    assert sorted(layer_of_each_part()) == sorted({file.stem for file in FILES})


def test_a_file_includes_only_files_of_the_layers_above_its_own():
    layers = layer_of_each_part()
    wrong = [
        f"{file.name} includes {other}.h"
        for file in FILES
        for other in included_by(file)
        if layers[other] >= layers[file.stem]
    ]
    assert wrong == []


def test_a_function_is_declared_in_the_header_of_the_file_that_defines_it():
    """So that who includes whom is also who calls whom."""
    wrong = [
        f"{header.name} declares {name}, which {header.stem}.c does not define"
        for header in CSRC.glob("*.h")
        for name in re.findall(r"^\w[\w \*]*?\b(fps_\w+)\([^;{]*\);", header.read_text(), re.M)
        if not defines(header.with_suffix(".c"), name)
    ]
    assert wrong == []
