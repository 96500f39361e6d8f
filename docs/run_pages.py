"""Execute the pages: python docs/run_pages.py [PAGE ...] [--verbose].

Every ```python block of README.md and docs/*.md runs, in order, one namespace a page, each page in
a process of its own, from the root of the repository. A ```text block that directly follows a
python block is what that block must print (`...` stands for anything). A page that fails, takes
more than a minute or reaches for the network is a failure. Pages without blocks are named.
"""

from __future__ import annotations

import argparse
import contextlib
import doctest
import io
import linecache
import os
import re
import subprocess
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 60.0  # seconds a page
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_SAME = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A python block of a page.

    Attributes:
        line: the line of the page on which its code begins.
        code: the code.
        output: what it must print, or None where the page does not say.
    """

    line: int
    code: str
    output: str | None


def pages() -> list[Path]:
    """README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(text: str) -> list[Block]:
    """The python blocks of a page."""
    found: list[Block] = []
    end = -1
    for fence in _FENCE.finditer(text):
        language, code = fence.groups()
        if language == "python":
            found.append(Block(text.count("\n", 0, fence.start(2)) + 1, code, None))
            end = fence.end()
        elif language == "text" and end >= 0 and not text[end : fence.start()].strip():
            found[-1] = Block(found[-1].line, found[-1].code, code)
            end = -1
    return found


def run(page: Path) -> None:
    """Execute the blocks of one page in this process."""

    def offline(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo"):
            raise RuntimeError(f"a page must not need the network: {event} {args[1:]}")

    sys.addaudithook(offline)
    text = page.read_text(encoding="utf-8")
    # tracebacks and dataclasses find the page under these names
    linecache.cache[str(page)] = (len(text), None, text.splitlines(keepends=True), str(page))
    module = types.ModuleType("page")
    sys.modules["page"] = module
    for block in blocks(text):
        printed = io.StringIO()
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        try:
            with contextlib.redirect_stdout(printed):
                exec(code, module.__dict__)
        finally:
            print(printed.getvalue(), end="")
        if block.output is not None and not doctest.OutputChecker().check_output(
            block.output, printed.getvalue(), _SAME
        ):
            raise AssertionError(
                f"{page}:{block.line}: the block printed\n{printed.getvalue()}"
                f"and not\n{block.output}"
            )


def check(page: Path, *, verbose: bool) -> bool:
    """Run one page in a process of its own and say how it went."""
    count = len(blocks(page.read_text(encoding="utf-8")))
    name = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    if not count:
        print(f"-     {name}: no python blocks")
        return True
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", **os.environ, "PYTHONPATH": path}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--inside", str(page)], cwd=ROOT, env=environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        ok, output = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
        ok, output = False, text.decode() if isinstance(text, bytes) else text
        output += f"\nstopped after {LIMIT:g} s\n"
    seconds = time.perf_counter() - start
    print(f"{'ok' if ok else 'FAIL':5} {name}: {count} blocks, {seconds:.1f} s", flush=True)
    if verbose or not ok:
        print("".join(f"      {line}\n" for line in output.splitlines()), end="")
    return ok


def main() -> int:
    """Run the pages named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--verbose", action="store_true", help="show what the pages print")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    chosen = [page.resolve() for page in args.pages] or pages()
    if args.inside:
        run(chosen[0])
        return 0
    results = [check(page, verbose=args.verbose) for page in chosen]
    print(f"{sum(results)} of {len(results)} pages ran")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
