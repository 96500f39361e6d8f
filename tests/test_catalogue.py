"""Claim: whatever has a name is in the catalogue, names its source, and is made from its repr.

Every public concrete class is registered; every entry has a source, a line of documentation and
working examples; a spelling makes the object it shows; wrong names, fields and registrations are
refused with the nearest right name, and refusing leaves no trace.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass
from importlib.util import find_spec

import pytest
from support import REPOSITORY

import sdekit
from sdekit.errors import ConfigError, DtypeError, SdekitError
from sdekit.sde import LinearSDE

# by the function, not by the module's name: the module is nobody's public name
registry = sys.modules[sdekit.register.__module__]
KINDS, catalogue, make, register = (
    registry.KINDS, registry.catalogue, registry.make, registry.register,
)  # fmt: skip

# kind -> the class that every entry of it descends from, in the kind's own room
BASES = {
    "sde": "SDE",
    "target": "Target",
    "parametrization": "Parametrization",
    "sampler": "Sampler",
    "grid": "Grid",
    "objective": "Objective",
    "weighting": "Weighting",
    "time": "TimeLaw",
    "metric": "Metric",
}

# public and concrete, and not to be had by name
UNNAMED = {"ReverseSDE": "made by SDE.reverse from a score, which is a function"}

ENTRIES = [entry for kind in KINDS for entry in catalogue(kind).values()]
DATACLASSES = [entry for entry in ENTRIES if is_dataclass(entry.cls)]


def label(entry):
    return f"{entry.kind}-{entry.name}"


def room(kind):
    """The kind's module, or None while it is not built."""
    spec = find_spec(KINDS[kind])
    return importlib.import_module(KINDS[kind]) if spec is not None and spec.origin else None


def base_of(kind):
    """The class that every entry of a kind descends from, `object` where there is none."""
    return getattr(room(kind), BASES[kind]) if kind in BASES else object


def named_class(entry):
    """The class of what a name makes: the entry's, or that of the one object it stands for."""
    own = issubclass(entry.cls, base_of(entry.kind))
    return entry.cls if own else type(make(entry.kind, entry.name))


every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=label)
every_kind = pytest.mark.parametrize("kind", KINDS)


def misspelt(name):
    """A name that is not in the catalogue and nearest to `name`."""
    return name + name[-1]


# what must be registered ------------------------------------------------------------------------


@every_kind
def test_every_public_concrete_class_is_registered(kind):
    module = room(kind)
    if module is None:
        pytest.skip(f"{KINDS[kind]} is not built yet")
    registered = {entry.cls for entry in ENTRIES}
    base = base_of(kind) if kind in BASES else ()
    public = [getattr(module, name) for name in module.__all__]
    concrete = [
        thing
        for thing in public
        if inspect.isclass(thing)
        and not inspect.isabstract(thing)
        and (issubclass(thing, base) or hasattr(thing, "examples"))
        and thing.__name__ not in UNNAMED
    ]
    missing = [cls.__name__ for cls in concrete if cls not in registered]
    assert concrete, f"{module.__name__} exports no class that could be registered"
    assert not missing, f"public, concrete and not in the catalogue: {missing}"


def test_the_classes_without_a_name_are_public_and_have_none():
    public = {
        name: getattr(room(kind), name)
        for kind in KINDS
        if room(kind)
        for name in room(kind).__all__
    }
    for name in UNNAMED:
        assert inspect.isclass(public[name])
        assert "catalogue_name" not in vars(public[name])


@every_kind
def test_a_kind_that_is_built_has_entries_of_its_base_in_its_room(kind):
    module = room(kind)
    if module is None:
        pytest.skip(f"{KINDS[kind]} is not built yet")
    entries = catalogue(kind)
    assert entries
    base = base_of(kind)
    for name, entry in entries.items():
        assert (entry.kind, entry.name) == (kind, name)
        assert all(isinstance(example, base) for example in entry.examples())
        home = sys.modules[entry.cls.__module__]
        assert entry.cls.__name__ in home.__all__, f"{home.__name__} does not export it"


# what an entry says -----------------------------------------------------------------------------


@every_entry
def test_an_entry_names_its_source_or_is_a_convention(entry):
    if not entry.paper:
        assert "convention" in inspect.getdoc(entry.cls).lower(), (
            f"{label(entry)} has neither a paper nor the word convention in its docstring"
        )


@every_entry
def test_an_entry_has_one_line_of_documentation(entry):
    first = inspect.getdoc(entry.cls).partition("\n")[0]
    assert entry.doc == re.sub(r", eqs?\. \(\d\)(?: to \(\d\))?", "", first)  # of its own module
    assert "(1)" not in entry.doc
    assert 10 <= len(entry.doc) <= 99
    assert entry.doc.endswith((".", ":"))
    assert not entry.doc.startswith(f"{entry.cls.__name__}("), (
        "the signature stands for a docstring"
    )


@every_entry
def test_an_entry_has_examples_of_its_class(entry):
    examples = entry.examples()
    assert examples
    for example in examples:
        assert type(example) is named_class(entry)


@pytest.mark.parametrize(
    "entry", [entry for entry in ENTRIES if entry.kind in {"sde", "sampler"}], ids=label
)
def test_a_bare_name_makes_the_object_with_all_defaults(entry):
    made = make(entry.kind, entry.name)
    assert type(made) is entry.cls
    assert made.catalogue_name == entry.name
    assert repr(made) == repr(make(entry.kind, f"{entry.name}()"))


# spellings --------------------------------------------------------------------------------------


def literal(value):
    """Whether a value can be written as a Python literal or as a spelling of its own."""
    if isinstance(value, tuple | list):
        return all(map(literal, value))
    if isinstance(value, dict):
        return all(map(literal, value.keys())) and all(map(literal, value.values()))
    if hasattr(value, "catalogue_name"):
        return is_literal_object(value)
    return value is None or isinstance(value, bool | int | float | complex | str)


def is_literal_object(thing):
    """Whether all fields of an object from the catalogue are literals."""
    return is_dataclass(thing) and all(
        literal(getattr(thing, field.name)) for field in fields(thing) if field.init
    )


def is_spelling(text):
    """Whether text has the form name(field=literal, ...)."""
    try:
        call = ast.parse(text, mode="eval").body
        return (
            isinstance(call, ast.Call)
            and not call.args
            and all(word.arg and [ast.literal_eval(word.value)] for word in call.keywords)
        )
    except (SyntaxError, ValueError):
        return False


@every_entry
def test_the_repr_of_an_example_makes_an_equal_object(entry):
    for example in entry.examples():
        text = repr(example)
        if is_literal_object(example):
            assert is_spelling(text), f"{text} cannot be read back"
        if not is_spelling(text):
            continue  # its fields are tensors or functions
        assert text.startswith(f"{example.catalogue_name}(")
        made = make(entry.kind, text)
        assert type(made) is type(example)
        assert made == example
        assert repr(made) == text


def test_some_repr_of_every_sde_and_sampler_is_a_spelling():
    named = [entry for entry in ENTRIES if entry.kind in {"sde", "sampler"}]
    assert named
    for entry in named:
        assert any(is_spelling(repr(example)) for example in entry.examples()), label(entry)


def test_a_view_is_a_mapping():
    assert catalogue("sde").get("vp") is catalogue("sde")["vp"]
    assert catalogue("sde").get("nope") is None
    assert catalogue("sde").get("nope", 3) == 3


def test_different_examples_have_different_spellings():
    for entry in ENTRIES:
        spelt = [repr(example) for example in entry.examples() if is_spelling(repr(example))]
        assert len(spelt) == len(set(spelt)), label(entry)


@pytest.mark.parametrize(
    "text",
    [
        "vp(beta_min=__import__('os').getpid())",
        "vp(beta_min=open('x'))",
        "vp(beta_min=x)",
        "vp(beta_max=5.0, beta_max=9.0)",
        "vp(0.1)",
        "vp(**{'beta_min': 0.1})",
        "vp(beta_min=0.1",
        "vp(beta_min=0.1); 1",
        "vp(beta_min=0.1)(2)",
        "vp(" + "(" * 5000,
        "",
        "os.system",
    ],
)
def test_text_that_is_no_spelling_is_refused_and_not_executed(text):
    with pytest.raises(ConfigError):
        make("sde", text)


# wrong names and fields -------------------------------------------------------------------------


@every_entry
def test_a_misspelt_name_is_answered_with_the_nearest(entry):
    """FAULTS B4 and E19."""
    wrong = misspelt(entry.name)
    names = set(catalogue(entry.kind))
    assert wrong not in names
    for ask in (lambda: make(entry.kind, wrong), lambda: catalogue(entry.kind)[wrong]):
        with pytest.raises(ConfigError) as caught:
            ask()
        message = str(caught.value)
        assert wrong in message
        mentioned = [word for word in re.findall(r"\w+", message) if word in names]
        assert mentioned[0] == entry.name, message
        assert set(mentioned) == names, "the message lists what is allowed"


@every_kind
def test_a_name_that_is_no_string_is_a_type_error(kind):
    with pytest.raises(DtypeError):
        catalogue(kind)[3]
    assert 3 not in catalogue(kind)


def test_a_misspelt_kind_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="sampler"):
        catalogue("sampelr")


@every_kind
def test_a_kind_may_be_named_in_the_plural(kind):
    assert dict(catalogue(f"{kind}s")) == dict(catalogue(kind))


@pytest.mark.parametrize("entry", DATACLASSES, ids=label)
def test_a_misspelt_field_is_answered_with_the_nearest(entry):
    """FAULTS A13: a TypeError from the constructor, a ConfigError from a spelling."""
    names = [field.name for field in fields(entry.cls) if field.init]
    for name in names or ["bogus"]:
        wrong = misspelt(name)
        with pytest.raises(TypeError) as caught:
            entry.cls(**{wrong: 1.0})
        message = str(caught.value)
        assert wrong in message
        if names:
            said = message.replace("did you mean", "")  # `mean` is a field of some
            mentioned = [word for word in re.findall(r"\w+", said) if word in names]
            assert mentioned, f"no field is named: {message}"
            assert mentioned[0] == name, message
        with pytest.raises(ConfigError, match=wrong):
            make(entry.kind, f"{entry.name}({wrong}=1.0)")


# registering ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Constant(LinearSDE):
    """An Ornstein-Uhlenbeck process for these tests."""

    rate: float = 4.0

    def log_alpha(self, t):
        return -self.rate * t

    def var(self, t):
        return -(-2 * self.rate * t).expm1()


def own_class(**members):
    """A fresh class like `Constant`, so that registering it marks no other."""
    return dataclass(frozen=True, kw_only=True)(type("Own", (Constant,), members))


@pytest.mark.usefixtures("scratch_catalogue")
def test_what_is_registered_is_at_once_in_the_catalogue():
    seen_before = catalogue("sde")
    cls = register("sde", "own_process", paper="arXiv:0000.00000")(own_class())
    assert catalogue("sde")["own_process"].cls is cls
    assert "own_process" in seen_before, "a mapping taken earlier is live"
    assert make("sde", "own_process(rate=2.0)").rate == 2.0
    assert repr(cls(rate=2.0)) == "own_process(rate=2.0)"


def test_the_catalogue_is_clean_after_a_test_that_registers():
    assert "own_process" not in catalogue("sde")


WRONG = {
    "name taken": ("sde", "vp", own_class),
    "name with capitals": ("sde", "OwnProcess", own_class),
    "name with a bracket": ("sde", "own()", own_class),
    "empty name": ("sde", "", own_class),
    "name that is no string": ("sde", 3, own_class),
    "unknown kind": ("sed", "own_process", own_class),
    "method without its argument": (
        "sde",
        "own_process",
        lambda: own_class(log_alpha=lambda self: 0.0),
    ),
    "method with an argument too many": (
        "sde",
        "own_process",
        lambda: own_class(var=lambda self, t, more: t),
    ),
    "abstract method left out": (
        "sde",
        "own_process",
        lambda: type("Own", (LinearSDE,), {"log_alpha": lambda self, t: t}),
    ),
    "no examples": ("sde", "own_process", lambda: type("Own", (), {})),
}


@pytest.mark.usefixtures("scratch_catalogue")
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_registration_is_refused_and_leaves_no_trace(case):
    """FAULTS E20."""
    kind, name, build = WRONG[case]
    cls = build()
    before = {kind: dict(catalogue(kind)) for kind in KINDS}
    with pytest.raises(ConfigError) as caught:
        register(kind, name)(cls)
    assert isinstance(caught.value, SdekitError)
    assert {kind: dict(catalogue(kind)) for kind in KINDS} == before
    assert "catalogue_name" not in vars(cls)


@pytest.mark.usefixtures("scratch_catalogue")
def test_registering_twice_names_the_first():
    register("sde", "own_process")(own_class())
    with pytest.raises(ConfigError, match="own_process"):
        register("sde", "own_process")(own_class())


@pytest.mark.skipif(room("sampler") is None, reason="sdekit.sampling is not built yet")
@pytest.mark.usefixtures("scratch_catalogue")
def test_a_sampler_whose_step_cannot_be_called_is_refused():
    """FAULTS E20, of a plug-in."""
    entry = next(iter(catalogue("sampler").values()))
    cls = type("Own", (entry.cls,), {"step": lambda self, x: x})
    with pytest.raises(ConfigError, match="step"):
        register("sampler", "own_sampler")(cls)
    assert "own_sampler" not in catalogue("sampler")


def test_the_catalogue_cannot_be_written_to():
    with pytest.raises(TypeError):
        catalogue("sde")["own_process"] = catalogue("sde")["vp"]


def test_another_package_registers_through_an_entry_point(tmp_path):
    (tmp_path / "own_plugin.py").write_text(
        "from dataclasses import dataclass\n"
        "from sdekit import VPSDE, register\n"
        "@register('sde', 'own_process')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Own(VPSDE):\n"
        "    '''A convention.'''\n"
    )
    described = tmp_path / "own_plugin-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: own-plugin\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[sdekit.plugins]\nown = own_plugin\n")
    program = (
        "import sys, sdekit\n"
        "registry = sys.modules[sdekit.register.__module__]\n"
        "print(registry.catalogue('sde')['own_process'].cls.__module__)\n"
        "print(registry.make('sde', 'own_process(beta_max=3.0)'))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["own_plugin", "own_process(beta_min=0.1, beta_max=3.0)"]
