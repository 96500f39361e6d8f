"""Draw mutations from the syntax trees of the mathematical rooms and see whether a test turns red.

    python tests/mutations.py [--count 30] [--seed 0] [--jobs 2] [--rooms sde model sampling]

A mutation is one edit: a sign (+ for -, a lost minus), a factor (* for /, a constant times two) or
an index (a constant subscript plus one). Messages, docstrings and annotations are left alone.
Each mutant is a copy of the package in a folder of its own; the tests of its room run first, then
the rest of the fast suite, and the first red test kills it. A mutant that runs longer than the
limit counts as killed too: a hang is noticed.
"""

from __future__ import annotations

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 900.0  # seconds a mutant
FIRST = {
    "sde": ("sde_", "ddpm_", "reverse_", "reference_sde", "faults_sde"),
    "model": ("model_", "sampling_", "objectives_"),
    "sampling": ("sampling_", "grid_", "noise_", "reference_", "faults_sampling"),
}
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


@dataclass(frozen=True)
class Mutation:
    """One edit of one file."""

    path: Path
    line: int
    before: str
    after: str
    source: str  # the whole mutated file

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.before}  ->  {self.after}"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _edits(node: ast.AST) -> list[ast.AST]:
    """The mutated forms of one node."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        if _is_text(node.left) or _is_text(node.right):
            return []
        forms: list[ast.AST] = [ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)]
        if isinstance(node.op, ast.Mult | ast.Div):
            for side in ("left", "right"):
                part = getattr(node, side)
                if isinstance(part, ast.Constant) and isinstance(part.value, int | float):
                    sides = {"left": node.left, "right": node.right}
                    sides[side] = ast.Constant(2 * part.value)
                    forms.append(ast.BinOp(sides["left"], node.op, sides["right"]))
        return forms
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return [node.operand]
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        index = node.slice.value
        if isinstance(index, int):
            return [ast.Subscript(node.value, ast.Constant(index + 1), node.ctx)]
    return []


def _left_alone(tree: ast.AST) -> set[int]:
    """Nodes inside messages, strings, annotations and __repr__."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Raise | ast.JoinedStr):
            parts = [node]
        elif isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            parts = [node.returns, *(a.annotation for a in arguments)]
            if node.name == "__repr__":
                parts = [node]
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        for part in parts:
            if part is not None:
                skipped.update(id(inner) for inner in ast.walk(part))
    return skipped


def mutations_of(path: Path) -> list[Mutation]:
    """Every mutation of one file."""
    text = path.read_text()
    tree = ast.parse(text)
    skipped = _left_alone(tree)
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        for form in _edits(node):
            low = starts[node.lineno - 1] + node.col_offset
            high = starts[node.end_lineno - 1] + node.end_col_offset
            raw = text.encode()
            after = ast.unparse(ast.fix_missing_locations(form))
            source = (raw[:low] + b"(" + after.encode() + b")" + raw[high:]).decode()
            before = " ".join(raw[low:high].decode().split())
            found.append(Mutation(path, node.lineno, before, after, source))
    return found


def _tests(room: str) -> tuple[list[str], list[str]]:
    """The test files of a room, and the others."""
    files = sorted((ROOT / "tests").glob("test_*.py"))
    first = [str(f) for f in files if any(f.name.startswith(f"test_{p}") for p in FIRST[room])]
    return first, [str(f) for f in files if str(f) not in first]


def survives(mutation: Mutation) -> bool:
    """Whether the fast suite stays green on this mutant."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sdekit", "tests", "docs", "benchmarks"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copy(ROOT / name, folder)
        (Path(folder) / mutation.path.relative_to(ROOT)).write_text(mutation.source)
        room = mutation.path.relative_to(ROOT / "sdekit").parts[0]
        for files in _tests(room):
            local = [str(Path(folder) / "tests" / Path(f).name) for f in files]
            command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow", *local]
            command += ["-p", "no:cacheprovider"]
            try:
                done = subprocess.run(
                    command, cwd=folder, capture_output=True, timeout=LIMIT, check=False,
                    env={"PYTHONPATH": folder, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1",
                         "SDEKIT_REFERENCE": str(ROOT.parent / "shared" / "reference")},
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return False
            if done.returncode != 0:
                return False
    return True


def main() -> int:
    """Draw, run, and list the survivors; exit 1 where more than one in fifteen survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rooms", nargs="+", default=["sde", "model", "sampling"])
    args = parser.parse_args()
    every = [
        mutation
        for room in args.rooms
        for path in sorted((ROOT / "sdekit" / room).glob("*.py"))
        for mutation in mutations_of(path)
    ]
    drawn = random.Random(args.seed).sample(every, min(args.count, len(every)))
    print(f"{len(drawn)} of {len(every)} mutations, seed {args.seed}", flush=True)

    def run(mutation: Mutation) -> bool:
        start = time.monotonic()
        alive = survives(mutation)
        verdict = "SURVIVED" if alive else "killed"
        print(f"{verdict:8} {time.monotonic() - start:5.0f} s  {mutation}", flush=True)
        return alive

    with ThreadPoolExecutor(args.jobs) as pool:
        survivors = sum(pool.map(run, drawn))
    print(f"{len(drawn) - survivors} passed, {survivors} failed")
    return int(survivors > len(drawn) // 15)


if __name__ == "__main__":
    sys.exit(main())
