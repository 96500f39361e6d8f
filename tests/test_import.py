"""Claim: importing sdekit costs nothing, and each name brings only what it needs.

The package resolves its public names when they are first used; the command line answers `--help`
and `--version` without torch.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
from support import REPOSITORY
from test_layers import LAYERS

import sdekit

HEAVY = ["torch", "numpy", "scipy", "matplotlib", "hypothesis", "pytest", "altair", "pandas"]
# what no public name may bring: tools of a room that is used on demand
ON_DEMAND = [
    "matplotlib", "hypothesis", "pytest", "altair", "vl_convert", "pandas", "sklearn", "PIL",
    "torchdiffeq", "tyro", "rich", "diffusers", "dask", "distributed",
]  # fmt: skip
SECONDS = 0.5  # FAULTS I11


def built(module):
    """Whether a module of sdekit exists, as a file."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


needs_cli = pytest.mark.skipif(not built("sdekit.cli"), reason="sdekit.cli is not built yet")


def run(*arguments, program=None):
    """A Python of its own; `program` stands for the installed script, whose body it is."""
    command = ["-c", program] if program else []
    return subprocess.run(
        [sys.executable, *command, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def loaded_after(program, watched):
    """Which of the watched modules are loaded after a program."""
    report = f"import json, sys; print(json.dumps([m for m in {watched!r} if m in sys.modules]))"
    done = run(program=f"{program}\n{report}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


SCRIPT = "import sys; sys.argv[0] = 'sdekit'\nfrom sdekit.cli import main\nsys.exit(main())"


# the package ------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    assert loaded_after("import sdekit; dir(sdekit); sdekit.__version__", HEAVY) == []
    assert loaded_after("import torch", HEAVY)[0] == "torch", "the question itself works"


def test_dir_lists_the_public_names():
    assert dir(sdekit) == sorted(sdekit.__all__)
    assert {"VPSDE", "sample", "catalogue", "__version__"} <= set(dir(sdekit))
    assert len(sdekit.__all__) == len(set(sdekit.__all__))


def test_type_checkers_see_the_names_that_exist_at_run_time():
    tree = ast.parse((REPOSITORY / "sdekit" / "__init__.py").read_text(encoding="utf-8"))
    block = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    declared = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == sdekit._HOME
    assert set(sdekit.__all__) == {"__version__", *declared}


@pytest.mark.parametrize("name", sorted(sdekit.__all__))
def test_a_public_name_resolves(name):
    home = sdekit._HOME.get(name, "sdekit")
    if not built(home):
        pytest.skip(f"{home} is not built yet")
    assert getattr(sdekit, name) is getattr(importlib.import_module(home), name)
    if name != "__version__":
        assert name in importlib.import_module(home).__all__


def test_a_name_means_the_same_whatever_was_imported_before():
    homes = sorted({home for home in sdekit._HOME.values() if built(home)})
    program = (
        "import importlib, sdekit\n"
        f"for home in {homes!r}: importlib.import_module(home)\n"
        "for name, home in sdekit._HOME.items():\n"
        f"    if home in {homes!r}:\n"
        "        expected = getattr(importlib.import_module(home), name)\n"
        "        if getattr(sdekit, name) is not expected:\n"
        "            print(name, getattr(sdekit, name))\n"
    )
    done = run(program=program)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"hidden by a module of the same name: {done.stdout}"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="VPSED"):
        sdekit.VPSED  # noqa: B018  # looking it up is the test


def test_a_name_loads_no_room_above_its_own():
    names = sorted(
        (name for name, home in sdekit._HOME.items() if built(home)),
        key=lambda name: LAYERS[sdekit._HOME[name].split(".")[1]],
    )
    program = (
        "import json, sys, sdekit\n"
        "seen = {}\n"
        f"for name in {names!r}:\n"
        "    getattr(sdekit, name)\n"
        "    seen[name] = [m for m in sys.modules if m.startswith('sdekit.')]\n"
        f"print(json.dumps([seen, [m for m in {ON_DEMAND!r} if m in sys.modules]]))\n"
    )
    done = run(program=program)
    assert done.returncode == 0, done.stderr
    seen, on_demand = json.loads(done.stdout.splitlines()[-1])
    for name, modules in seen.items():
        layer = LAYERS[sdekit._HOME[name].split(".")[1]]
        higher = [module for module in modules if LAYERS[module.split(".")[1]] > layer]
        assert not higher, f"sdekit.{name} loads {higher}"
    assert on_demand == [], "loaded before anything asks for them"


# the command line -------------------------------------------------------------------------------


@needs_cli
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_line_answers_without_torch(option):
    program = (
        f"import sys; sys.argv = ['sdekit', {option!r}]\n"
        "from sdekit.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
    )
    assert loaded_after(program, [tool for tool in HEAVY if tool != "pytest"]) == []


@needs_cli
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_line_answers_at_once(option):
    seconds = []
    for _ in range(5):  # the least of five: other work on the machine only adds
        started = time.perf_counter()
        assert run(option, program=SCRIPT).returncode == 0
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < SECONDS


@needs_cli
def test_version_prints_the_version():
    done = run("--version", program=SCRIPT)
    assert sdekit.__version__ in done.stdout.split()
    assert done.returncode == 0


@needs_cli
@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["--version"], 0), (["smaple"], 2), (["--halp"], 2)]
)
def test_python_m_sdekit_is_the_same_command(arguments, code):
    script = run(*arguments, program=SCRIPT)
    module = run("-m", "sdekit", *arguments)
    assert (module.returncode, module.stdout, module.stderr) == (
        script.returncode,
        script.stdout,
        script.stderr,
    )
    assert module.returncode == code
    assert "Traceback" not in module.stderr
