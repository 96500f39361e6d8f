"""Claim: sdekit's source keeps the order of its house.

Imports go down the layers only; heavy libraries stay in their rooms; files stay short; no branch
on the class of an SDE or sampler; no hand-made broadcast; no global randomness; nothing that
executes what it loads. Every rule is also shown a source that breaks it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import pytest
from support import REPOSITORY

import sdekit

PACKAGE = REPOSITORY / "sdekit"
LINES = 350  # that are not blank

LAYERS = {
    "cli": 6, "__main__": 6,
    "compare": 5, "verify": 5,
    "training": 4, "metrics": 4, "exact": 4,
    "objectives": 3, "sampling": 3, "likelihood": 3,
    "model": 2,
    "sde": 1, "targets": 1,
    "errors": 0, "plots": 0, "catalogue": 0, "_catalogue": 0, "_check": 0, "_times": 0,
    "_cache": 0, "_files": 0, "_extras": 0, "_page": 0,
}  # fmt: skip

# The base classes that an argument may be compared with.
BASES = {"SDE", "Sampler"}
# Abstract roles that an argument may be refused for, by `if ... isinstance(...): raise` alone.
DEMANDED = {"LinearSDE", "Corrector"}


class Import(NamedTuple):
    """One imported module and where it is imported."""

    name: str
    line: int
    in_function: bool
    type_checking: bool


class Module(NamedTuple):
    """One module of sdekit: its dotted name and its source."""

    name: str
    source: str
    is_package: bool = False

    @property
    def room(self) -> str:
        """The part after `sdekit.`; empty for the package itself."""
        return self.name.partition(".")[2].partition(".")[0]


@cache
def parsed(source: str) -> ast.Module:
    """The syntax tree."""
    return ast.parse(source)


def modules() -> list[Module]:
    """Every module of sdekit."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes, else an empty string."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return node.id if isinstance(node, ast.Name) else ""


def imports(module: Module) -> Iterator[Import]:
    """What a module imports: at its top, in functions, for type checkers, or by a literal name.

    A name imported from `sdekit` itself counts as an import of the module that defines it.
    """

    def names(node: ast.AST) -> list[str]:
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                kept = parts[: len(parts) - node.level + module.is_package]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            if base == "sdekit":
                return [
                    sdekit._HOME.get(
                        a.name, "sdekit" if a.name == "__version__" else f"sdekit.{a.name}"
                    )
                    for a in node.names
                ]
            return [base]
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function, first = dotted(node.func), node.args[0].value
            if function.endswith(("import_module", "__import__")) and isinstance(first, str):
                return [first]
        return []

    def walk(node: ast.AST, in_function: bool, type_checking: bool) -> Iterator[Import]:
        for name in names(node):
            yield Import(name, node.lineno, in_function, type_checking)
        inside = in_function or isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
        )
        checking = type_checking or (
            isinstance(node, ast.If) and dotted(node.test).endswith("TYPE_CHECKING")
        )
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside, checking)

    return walk(parsed(module.source), False, False)


# the rules: each yields what is wrong -----------------------------------------------------------


def no_upward_import(module: Module) -> Iterator[str]:
    """A lower layer never imports a higher one."""
    if not module.room:
        return  # the front door: it resolves names lazily, and no module below may import it
    if module.room not in LAYERS:
        yield f"{module.name} has no layer; the design knows {sorted(LAYERS)}"
        return
    for found in imports(module):
        package, _, rest = found.name.partition(".")
        room = rest.partition(".")[0]
        if package != "sdekit" or not room:
            continue
        if LAYERS.get(room, 99) > LAYERS[module.room]:
            yield f"line {found.line}: layer {LAYERS[module.room]} imports {found.name}"


def plots_alone_import_matplotlib(module: Module) -> Iterator[str]:
    """Matplotlib is imported by sdekit.plots, inside its functions."""
    for found in imports(module):
        if found.name.partition(".")[0] != "matplotlib" or found.type_checking:
            continue
        if module.room != "plots":
            yield f"line {found.line}: imports {found.name}; pictures are made by sdekit.plots"
        elif not found.in_function:
            yield f"line {found.line}: imports {found.name} outside a function"


def heavy_tools_stay_upstairs(module: Module) -> Iterator[str]:
    """Altair, Hypothesis and pytest belong to compare and verify."""
    for found in imports(module):
        tool = found.name.partition(".")[0]
        if tool in {"altair", "hypothesis", "pytest"} and module.room not in {"compare", "verify"}:
            yield f"line {found.line}: imports {tool}"


def short_file(module: Module) -> Iterator[str]:
    """A file holds one thing."""
    count = sum(bool(line.strip()) for line in module.source.splitlines())
    if count > LINES:
        yield f"{count} lines that are not blank, more than {LINES}: is a second thing in it?"


@cache
def process_and_sampler_classes() -> frozenset[str]:
    """Every class of sdekit that descends from SDE or Sampler, but for the two themselves."""
    parents = {
        node.name: {dotted(base).rpartition(".")[2] for base in node.bases}
        for module in modules()
        for node in ast.walk(parsed(module.source))
        if isinstance(node, ast.ClassDef)
    }
    known = set(BASES)
    while True:
        grown = known | {name for name, bases in parents.items() if bases & known}
        if grown == known:
            return frozenset(known - BASES)
        known = grown


def no_branch_on_class(module: Module) -> Iterator[str]:
    """What an SDE or sampler can do is declared (`kinds`, `needs`), not read off its class."""

    def classes(node: ast.AST) -> set[str]:
        return {dotted(part).rpartition(".")[2] for part in ast.walk(node)} & (
            process_and_sampler_classes()
        )

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef) and node.name == "__eq__":
            return  # equality compares an object with its own class
        refuses = isinstance(node, ast.If) and all(
            isinstance(part, ast.Raise) for part in [*node.body, *node.orelse]
        )
        if refuses and classes(node.test) <= DEMANDED:
            return
        wrong: set[str] = set()
        if isinstance(node, ast.Call) and dotted(node.func) in {"isinstance", "issubclass"}:
            wrong = classes(node.args[1])
        elif isinstance(node, ast.Compare) and any(
            isinstance(part, ast.Call) and dotted(part.func) == "type"
            for part in (node.left, *node.comparators)
        ):
            wrong = classes(node)
        elif isinstance(node, ast.MatchClass):
            wrong = classes(node.cls)
        if wrong:
            yield f"line {node.lineno}: asks whether an object is a {', '.join(sorted(wrong))}"
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return walk(parsed(module.source))


def no_handmade_broadcast(module: Module) -> Iterator[str]:
    """Coefficients meet samples in `expand_like`."""
    for node in ast.walk(parsed(module.source)):
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            first, *rest = node.slice.elts
            nones = sum(isinstance(e, ast.Constant) and e.value is None for e in rest)
            if isinstance(first, ast.Slice) and nones >= 2:
                yield f"line {node.lineno}: {ast.unparse(node)}; use expand_like"
        if isinstance(node, ast.While) and any(
            isinstance(part, ast.Attribute) and part.attr.startswith("unsqueeze")
            for part in ast.walk(node)
        ):
            yield f"line {node.lineno}: unsqueezes in a loop; use expand_like"


SETTERS = {
    "manual_seed", "seed", "set_rng_state", "random.manual_seed", "random.set_rng_state",
    "cuda.manual_seed", "cuda.manual_seed_all", "set_default_dtype", "set_default_device",
    "set_default_tensor_type",
}  # fmt: skip
DRAWS = {
    "rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson",
    "rand_like", "randn_like", "randint_like",
}  # fmt: skip
DRAWS_IN_PLACE = {
    "normal_", "uniform_", "random_", "bernoulli_", "exponential_", "cauchy_", "log_normal_",
    "geometric_",
}  # fmt: skip
NUMPY_RANDOM = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64", "BitGenerator"}


# Dropout draws from torch's global state and takes no generator. These may seed that state, inside
# `torch.random.fork_rng`, which puts it back; the guard in conftest.py sees that it does.
SEEDS_A_FORK = {"sdekit.training.loop"}


# one of its mutants draws from the global source, which a check must see
WRONG_ON_PURPOSE = "sdekit.verify.mutants.plumbing"


def no_global_randomness(module: Module) -> Iterator[str]:
    """Randomness comes from what is passed in; global defaults are left alone."""
    if module.name == WRONG_ON_PURPOSE:
        return
    forks = module.name in SEEDS_A_FORK and "torch.random.fork_rng(" in module.source
    for found in imports(module):
        if found.name == "random":
            yield f"line {found.line}: imports the standard library's random"
    for node in ast.walk(parsed(module.source)):
        if isinstance(node, ast.Attribute):
            owner, _, name = dotted(node).rpartition(".")
            if owner in {"np.random", "numpy.random"} and name not in NUMPY_RANDOM:
                yield f"line {node.lineno}: {owner}.{name} uses NumPy's global state"
            if owner == "torch" and name == "default_generator" and not forks:
                yield f"line {node.lineno}: torch.default_generator is the global state"
        if not isinstance(node, ast.Call):
            continue
        function = dotted(node.func)
        given = {word.arg for word in node.keywords}
        attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        setter = function.removeprefix("torch.") if function.startswith("torch.") else ""
        if setter in SETTERS and not (forks and "default" not in setter):
            yield f"line {node.lineno}: {function} changes a global default"
        from_global = (
            function.startswith("torch.") and function.removeprefix("torch.") in DRAWS
        ) or attribute in DRAWS_IN_PLACE
        if from_global and "generator" not in given:
            yield f"line {node.lineno}: {function or attribute} draws without a generator"


def nothing_executed(module: Module) -> Iterator[str]:
    """Loading a file executes nothing."""
    unsafe_modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for found in imports(module):
        if found.name.partition(".")[0] in unsafe_modules:
            yield f"line {found.line}: imports {found.name}"
    for node in ast.walk(parsed(module.source)):
        if not isinstance(node, ast.Call):
            continue
        function = dotted(node.func)
        if function in {"torch.load", "torch.save", "torch.jit.load", "eval", "exec"}:
            yield f"line {node.lineno}: calls {function}"
        allows = [word.value for word in node.keywords if word.arg == "allow_pickle"]
        if any(not (isinstance(v, ast.Constant) and v.value is False) for v in allows):
            yield f"line {node.lineno}: {function} with allow_pickle"


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [
    no_upward_import,
    plots_alone_import_matplotlib,
    heavy_tools_stay_upstairs,
    short_file,
    no_branch_on_class,
    no_handmade_broadcast,
    no_global_randomness,
    nothing_executed,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule):
    found = modules()
    assert len(found) > 10, f"the modules of {PACKAGE} are not found"
    wrong = [f"{module.name}: {fault}" for module in found for fault in rule(module)]
    assert not wrong, f"{rule.__doc__}\n" + "\n".join(wrong)


BROKEN = [
    (no_upward_import, "sdekit.sde.vp", "from sdekit.sampling import sample"),
    (no_upward_import, "sdekit.model.exact", "from sdekit import sample"),
    (no_upward_import, "sdekit.errors", "import sdekit.sde.base as base"),
    (
        no_upward_import,
        "sdekit.sampling.base",
        "def f():\n    from sdekit.training import Trainer",
    ),
    (
        no_upward_import,
        "sdekit.sampling.base",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sdekit.exact",
    ),
    (no_upward_import, "sdekit.sde.vp", "from ..sampling.base import Sampler"),
    (no_upward_import, "sdekit.sde.vp", "import_module('sdekit.verify')"),
    (no_upward_import, "sdekit.utils", "import math"),
    (plots_alone_import_matplotlib, "sdekit.plots", "import matplotlib.pyplot as plt"),
    (plots_alone_import_matplotlib, "sdekit.plots.bars", "from matplotlib import cm"),
    (plots_alone_import_matplotlib, "sdekit.cli.demo", "def f():\n    from matplotlib import cm"),
    (heavy_tools_stay_upstairs, "sdekit.metrics.distances", "def f():\n    import altair"),
    (short_file, "sdekit.sde.vp", "x = 1\n" * (LINES + 1)),
    (no_branch_on_class, "sdekit.sampling.base", "if isinstance(sde, VPSDE):\n    pass"),
    (no_branch_on_class, "sdekit.sampling.base", "isinstance(sde, (int, sdekit.sde.VESDE))"),
    (no_branch_on_class, "sdekit.sampling.base", "x = type(self.sde) is SubVPSDE"),
    (no_branch_on_class, "sdekit.model.exact", "if not isinstance(sde, LinearSDE):\n    x = 1"),
    (no_branch_on_class, "sdekit.model.exact", "if not isinstance(sde, VPSDE):\n    raise E"),
    (no_branch_on_class, "sdekit.cli.train", "match sde:\n    case DDPM():\n        pass"),
    (no_handmade_broadcast, "sdekit.sde.vp", "y = a[:, None, None, None] * x"),
    (no_handmade_broadcast, "sdekit.sde.vp", "while a.ndim < 4:\n    a = a.unsqueeze(-1)"),
    (no_global_randomness, "sdekit.training.trainer", "torch.manual_seed(0)"),
    (no_global_randomness, "sdekit.training.trainer", "torch.default_generator.manual_seed(0)"),
    (no_global_randomness, "sdekit.training.trainer", "torch.random.fork_rng(); torch.seed()"),
    (no_global_randomness, "sdekit.training.loop", "torch.manual_seed(0)"),
    (
        no_global_randomness,
        "sdekit.training.loop",
        "torch.random.fork_rng(); torch.set_default_dtype(d)",
    ),
    (no_global_randomness, "sdekit.training.trainer", "torch.set_default_dtype(torch.float64)"),
    (no_global_randomness, "sdekit.targets.gaussian", "x = torch.randn(3, 2)"),
    (no_global_randomness, "sdekit.targets.gaussian", "torch.empty(3).normal_()"),
    (no_global_randomness, "sdekit.targets.gaussian", "x = np.random.rand(3)"),
    (no_global_randomness, "sdekit.targets.gaussian", "import random"),
    (nothing_executed, "sdekit.training.checkpoint", "import pickle"),
    (nothing_executed, "sdekit.training.checkpoint", "torch.load(path, weights_only=True)"),
    (nothing_executed, "sdekit.training.checkpoint", "np.load(path, allow_pickle=True)"),
]


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    BROKEN,
    ids=[f"{rule.__name__}-{i}" for i, (rule, *_) in enumerate(BROKEN)],
)
def test_the_rule_sees_a_source_that_breaks_it(rule, name, source):
    assert list(rule(Module(name, source)))


ALLOWED = [
    (no_upward_import, "sdekit.cli.train", "from sdekit import sample\nimport sdekit.training"),
    (no_upward_import, "sdekit.sde.vp", "from sdekit import __version__\nfrom .base import SDE"),
    (plots_alone_import_matplotlib, "sdekit.plots", "def f():\n    import matplotlib.pyplot"),
    (plots_alone_import_matplotlib, "sdekit.plots.bars", "def f():\n    import matplotlib.cm"),
    (heavy_tools_stay_upstairs, "sdekit.verify.strategies", "import hypothesis"),
    (no_branch_on_class, "sdekit.model.exact", "isinstance(sde, SDE)"),
    (no_branch_on_class, "sdekit.model.exact", "if not isinstance(a, LinearSDE):\n    raise E"),
    (no_branch_on_class, "sdekit.cli.train", "if x or isinstance(a, Corrector):\n    raise E"),
    (no_handmade_broadcast, "sdekit.targets.gaussian", "d = x[:, None] - means[None, :]"),
    (
        no_global_randomness,
        "sdekit.targets.gaussian",
        "torch.randn(3, generator=g).normal_(generator=g)",
    ),
    (no_global_randomness, "sdekit.targets.gaussian", "g = torch.Generator().manual_seed(0)"),
    (no_global_randomness, "sdekit.training.loop", "torch.random.fork_rng(); torch.seed()"),
    (nothing_executed, "sdekit.training.checkpoint", "np.load(path, allow_pickle=False)"),
]


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    ALLOWED,
    ids=[f"{rule.__name__}-{i}" for i, (rule, *_) in enumerate(ALLOWED)],
)
def test_the_rule_leaves_a_right_source_alone(rule, name, source):
    assert not list(rule(Module(name, source)))
