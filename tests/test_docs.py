"""Claim: the pages say what is: tables are current, links resolve, additions are short and seen.

The pages are executed by `docs/run_pages.py`; here the same script runs on pages that are wrong.
The classes of "add an SDE" and "add a sampler" are installed as a package of somebody's own, and
are then in the command line, in the tests and in the benchmark.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from support import REPOSITORY

from sdekit import catalogue
from sdekit.cli import COMMANDS

DOCS = REPOSITORY / "docs"


@functools.cache
def script(name):
    """A script of docs/ as a module."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    module = sys.modules.setdefault(name, module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


PAGES = script("run_pages").pages()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page):
    return Path(page).read_text(encoding="utf-8")


def definition(page):
    """The source of the block of a page that registers a class."""
    found = [b.code for b in script("run_pages").blocks(text_of(page)) if "@register(" in b.code]
    assert len(found) == 1
    return found[0]


def python(*arguments, path=(), **environment):
    """Another Python, from the root of the repository."""
    paths = os.pathsep.join([*map(str, path), str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", script("tables").REGIONS)
def test_the_tables_of_a_page_are_those_of_the_catalogue(page):
    tables = script("tables")
    text = text_of(REPOSITORY / page)
    for name, make in tables.REGIONS[page].items():
        assert tables.fill(text, name, make()) == text, f"{page}: run python docs/tables.py"


@pytest.mark.parametrize("kind", ["sde", "sampler"])
def test_the_readme_names_every_entry(kind):
    text = text_of(REPOSITORY / "README.md")
    for name in script("tables").own(kind):
        assert f"| `{name}` |" in text


@pytest.mark.parametrize("kind", ["sde", "sampler"])
def test_the_first_spelling_of_an_entry_has_its_defaults(kind):
    for entry in script("tables").own(kind).values():
        assert entry.examples()[0] == entry.make()


def test_the_reference_documents_every_public_name():
    tables = script("tables")
    text = tables.reference()
    for room in tables.ROOMS:
        for name in __import__(f"sdekit.{room}", fromlist=["__all__"]).__all__:
            assert re.search(rf"(?<=[ `]){re.escape(name)}(?=[,`\n])", text), name


def test_a_stale_region_is_seen_and_a_missing_one_refused():
    fill = script("tables").fill
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb"
    assert fill(text, "x", "new") == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb"
    for wrong in ("no region", text + text, "<!-- x:end --> <!-- x:begin -->"):
        with pytest.raises(ValueError, match="region"):
            fill(wrong, "x", "new")


def test_measured_overheads_go_into_their_region(tmp_path, monkeypatch):
    page = tmp_path / "performance.md"
    page.write_text(text_of(DOCS / "performance.md"))
    row = {
        "sampler": "ddim(eta=0.0)", "batch": 1, "steps": 200, "calls": 200, "ours_us": 8.25,
        "bare_us": 7.5, "ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.2, "reach": 1.5,
        "planning_ms": 0.6,
    }  # fmt: skip
    rows = [row, {**row, "sampler": "heun()", "ratio": 1.75}]
    (tmp_path / "overhead.json").write_text(json.dumps(rows))
    for _ in range(2):  # again, over what is there
        arguments = ["performance_table.py", str(tmp_path / "overhead.json"), str(page)]
        monkeypatch.setattr(sys, "argv", arguments)
        assert script("performance_table").main() == 0
    written = page.read_text()
    assert written.count("| `ddim(eta=0.0)` | 1x2 | 200 | 7.5 | 8.2 | 1.10 (1.05 to 1.20) |") == 1
    assert "1 of 2 rows are at or below the ratio to reach; 2 are planned in less" in written
    assert "Not measured yet" not in written


# code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["add-an-sde.md", "add-a-sampler.md"])
def test_the_new_class_has_under_twenty_lines(page):
    """Lines that are not empty, from the first decorator to the end; imports are not counted."""
    code = definition(DOCS / page)
    (cls,) = (node for node in ast.parse(code).body if isinstance(node, ast.ClassDef))
    first = min(decorator.lineno for decorator in cls.decorator_list)
    lines = [line for line in code.splitlines()[first - 1 : cls.end_lineno] if line.strip()]
    assert len(lines) < 20
    assert max(map(len, lines)) <= 99


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with both new classes as an installed package that announces them."""
    folder = tmp_path_factory.mktemp("site")
    modules = {"my_processes": "add-an-sde.md", "my_samplers": "add-a-sampler.md"}
    for module, page in modules.items():
        code = definition(DOCS / page)
        name = re.search(r"^class (\w+)", code, re.MULTILINE)[1]
        (folder / f"{module}.py").write_text(f"{code}\n__all__ = [{name!r}]\n")
    described = folder / "my_package-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    points = "\n".join(f"{module} = {module}" for module in modules)
    (described / "entry_points.txt").write_text(f"[sdekit.plugins]\n{points}\n")
    return folder


NEW = {"sde": "power_vp", "sampler": "two_step_ddim"}


def test_the_new_classes_are_in_the_command_line(installed):
    done = python("-m", "sdekit", "list", path=[installed])
    assert done.returncode == 0, done.stderr
    for name in NEW.values():
        assert re.search(rf"\b{name}\(", done.stdout)


# file -> what must be among its cases
TESTED = {
    "test_catalogue.py": ["power_vp", "two_step_ddim"],
    "test_verify_catalogue.py": ["power_vp", "two_step_ddim"],
}


@pytest.mark.slow
def test_the_new_classes_are_in_the_tests_and_pass(installed):
    done = python(
        "-m", "pytest", "-v", "-p", "no:cacheprovider", "-m", "not slow",
        "-k", " or ".join(NEW.values()),
        *(REPOSITORY / "tests" / file for file in TESTED), path=[installed],
    )  # fmt: skip
    for file, names in TESTED.items():
        for name in names:
            assert re.search(rf"{file}::.*{name}.*PASSED", done.stdout), f"{name} in {file}"
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_new_sampler_is_in_the_benchmark(installed):
    program = (
        "import sys; sys.path.insert(0, 'benchmarks'); sys.argv[1:] = ['--quick']\n"
        "import sampler_overhead as b\n"
        "real, seen = b.measure, []\n"
        "def measure(sampler, *a, **k):\n"
        "    if sampler.catalogue_name != 'two_step_ddim': return seen[0]\n"
        "    seen.append(real(sampler, *a, **k)); return seen[-1]\n"
        "from sdekit import catalogue\n"
        "measure(catalogue('sampler')['two_step_ddim'].make(), 1, 4, 4)\n"
        "b.measure = measure; b.main(); print(len(seen), 'measured')\n"
    )
    done = python("-c", program, path=[installed])
    assert done.returncode == 0, done.stderr
    assert "3 measured" in done.stdout  # once by itself, then at both batch sizes


def test_a_plug_in_leaves_the_tables_alone(installed):
    done = python(DOCS / "tables.py", "--check", path=[installed])
    assert done.returncode == 0, done.stdout + done.stderr


# running pages ----------------------------------------------------------------------------------

WRONG = {
    "an assertion that fails": "```python\nassert 1 == 2\n```\n",
    "a block after a good one": "```python\nx = 1\n```\n\n```python\nx.missing\n```\n",
    "another output": "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    "the network": "```python\nimport socket\nsocket.getaddrinfo('localhost', 80)\n```\n",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_page_is_a_failure_that_names_the_line(tmp_path, case):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n" + WRONG[case])
    done = python(DOCS / "run_pages.py", page)
    assert done.returncode == 1
    assert "FAIL" in done.stdout
    assert re.search(rf"{re.escape(str(page))}(:|\", line )\d+", done.stdout), done.stdout


def test_pages_share_nothing_and_blocks_share_a_namespace(tmp_path):
    first, second, none = (tmp_path / f"{name}.md" for name in ("first", "second", "none"))
    first.write_text("```python\nx = 1\n```\n\ntext\n\n```python\nprint(x + 1.25)\n```\n\n"
                     "```text\n2...\n```\n")  # fmt: skip
    second.write_text("```python\nassert 'x' not in globals()\n```\n")
    none.write_text("# Words\n\n```sh\nfalse\n```\n")
    done = python(DOCS / "run_pages.py", first, second, none)
    assert done.returncode == 0, done.stdout
    assert "first.md: 2 blocks" in done.stdout
    assert "none.md: no python blocks" in done.stdout
    assert "3 of 3 pages ran" in done.stdout


# words ------------------------------------------------------------------------------------------


def anchors(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


LINKING = [*PAGES, REPOSITORY / "CHANGELOG.md", REPOSITORY / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_internal_links_resolve(page):
    text = text_of(page)
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in anchors(text_of(target)), f"{page.name} links to {link}"


def test_every_page_is_in_the_table_of_contents():
    toc = re.search(r"```\{toctree\}\n(.*?)```", text_of(DOCS / "index.md"), re.DOTALL)[1]
    listed = {line for line in toc.split() if not line.startswith(":")}
    assert listed == {page.stem for page in DOCS.glob("*.md")} - {"index"}


@every_page
def test_every_command_of_a_page_exists(page):
    text = text_of(page)
    quoted = re.findall(r"`sdekit ([a-z][a-z-]*)", text)
    shell = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    typed = re.findall(r"^sdekit ([a-z][a-z-]*)", shell, re.MULTILINE)
    assert set(quoted + typed) <= set(COMMANDS)


def test_every_make_target_of_a_page_exists():
    targets = set(re.findall(r"^([a-z-]+):", text_of(REPOSITORY / "Makefile"), re.MULTILINE))
    for page in LINKING:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", text_of(page), re.MULTILINE)
        assert set(named) <= targets, page.name


FILES = [*LINKING, *DOCS.glob("*.py")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_page_names_no_folder_of_one_machine(file):
    found = re.findall(r"(?<![\w.:/])/(?:work|home|root|tmp|Users|mnt|opt)\b\S*", text_of(file))
    assert not found


def test_the_pictures_of_the_pages_are_pictures():
    """Each is there, and each that is there is shown."""
    images = set()
    for page in [REPOSITORY / "README.md", *DOCS.glob("*.md")]:
        for image in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text_of(page)):
            images.add((page.parent / image).resolve())
    assert {p.resolve() for p in (DOCS / "images").iterdir()} == images
    for image in images:
        data = image.read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        assert 10_000 < len(data) < 1_000_000


def test_what_the_pages_register_is_in_no_catalogue_here():
    for kind, name in NEW.items():
        assert name not in catalogue(kind)
