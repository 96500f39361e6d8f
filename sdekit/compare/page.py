"""The page of `sdekit compare`: one file that loads nothing, on any screen, light or dark.

Its policy (a Content-Security-Policy in the page itself) allows the scripts whose digests it
names and nothing else: no request, no inline handler, no evaluation of text, so that a name which
slipped through an escape would still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from sdekit._page import document, tag
from sdekit.compare.charts import bundle, specs
from sdekit.compare.embedded import numbers, overheads
from sdekit.compare.escaping import html, json_in_script, visible
from sdekit.compare.findings import Findings
from sdekit.compare.naming import Shown
from sdekit.compare.tables import Sentence, figures, order_table, to_html, winner_table
from sdekit.compare.text import VARIES

__all__ = ["page"]

_WEB = Path(__file__).with_name("web")
_SCRIPTS = ("base.js", "charts.js", "pictures.js", "rows.js", "start.js")


@cache
def _script() -> str:
    """The page's own script: its parts in one scope."""
    parts = [(_WEB / name).read_text(encoding="utf-8") for name in _SCRIPTS]
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "})();\n"


@cache
def _style() -> str:
    return (_WEB / "page.css").read_text(encoding="utf-8")


def page(stored: Shown, found: Findings) -> str:
    """The whole page as one text.

    Args:
        stored: the experiment and its cells.
        found: what its rows say.
    """
    drawn = numbers(stored, found.fronts)
    places = {text: k for k, text in enumerate(drawn["texts"])}
    titles = {row["metric"]: row["title"] for row in stored.rows}
    scripts = (bundle(), _script())
    name = stored.experiment.name
    return document(
        f"{visible(name)}: a comparison of samplers",
        style=_style(),
        head=[f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">'],
        body=[
            "<main>",
            f"<h1>{html(name)}</h1>",
            f"<p>{to_html(found.summary)}</p>",
            f'<div class="why">{_list(map(to_html, found.wins), "win")}</div>',
            _list(map(to_html, found.failures), "bad"),
            _details("Where a metric does not apply", found.absent),
            _NEEDS,
            _CHOICE,
            _FRONT,
            "<h2>Winners within budgets</h2>",
            winner_table(found.winners).html("Winners within budgets", "winners", places),
            _EVERY,
            "<h2>Orders of convergence</h2>",
            order_table(found.fits, titles).html("Orders of convergence", "orders", places),
            _EFFECTS,
            _WEIGHTS,
            _PICTURES,
            _ROWS,
            "<h2>The experiment</h2>",
            f'<pre tabindex="0"><code>{_toml(stored)}</code></pre>',
            "</main>",
            '<div id="tip" role="status" hidden></div>',
            f'<script type="application/json" id="specs">{json_in_script(specs())}</script>',
            f'<script type="application/json" id="numbers">{json_in_script(drawn)}</script>',
            "<!-- varies -->",
            _varying(stored),
            "<!-- /varies -->",
            *(f"<script>{script}</script>" for script in scripts),
        ],
    )


def _policy(scripts: Iterable[str]) -> str:
    """What the page may do: run these scripts, and be styled."""
    digests = (hashlib.sha256(script.encode("utf-8")).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _list(items: Iterable[str], kind: str) -> str:
    lines = "\n".join(f'<li class="{kind}">{item}</li>' for item in items)
    return f"<ul>\n{lines}\n</ul>" if lines else ""


def _details(title: str, sentences: Sequence[Sentence]) -> str:
    """A list that opens when it is asked for; nothing where it is empty."""
    if not sentences:
        return ""
    items = _list(map(to_html, sentences), "quiet")
    return f"<details><summary>{html(title)}</summary>{items}</details>"


def _toml(stored: Shown) -> str:
    lines = stored.experiment.to_toml().rstrip("\n").split("\n")
    return "\n".join(html(line) for line in lines)


def _varying(stored: Shown) -> str:
    """Times and environment, with numbers of their own."""
    several = len({cell["spec"]["grid"] for cell in stored.cells}) > 1
    times = [
        {
            "cell": visible(one["cell"]), "sde": visible(one["sde"]),
            "label": visible(one["sampler"])
            + (f" on {visible(one['grid'])}" if several else ""),
            **{k: float(f"{one[k]:.4g}") for k in ("calls", "per_call", "network", "overhead")},
            "runs": one["runs"], "steps": one["steps"],
        }
        for one in overheads(stored)
    ]  # fmt: skip
    about = "".join(
        f"{tag('dt', visible(key))}{tag('dd', visible(value))}"
        for key, value in sorted(stored.environment.items())
    )
    entrants = "".join(_time_line(label, group) for label, group in _by_label(times).items())
    return (
        f'<section class="varies"><h2>{html(VARIES)}</h2>\n{_OVERHEAD}'
        f'<div class="wide" tabindex="0" role="region" aria-label="Times"><table>{_TIME_HEAD}'
        f"<tbody>{entrants}</tbody></table></div>\n<dl>{about}</dl>\n"
        f'<script type="application/json" id="times">{json_in_script(times)}</script></section>'
    )


def _by_label(times: Iterable[dict[str, object]]) -> dict[str, list[dict[str, object]]]:
    groups: dict[str, list[dict[str, object]]] = {}
    for one in times:
        groups.setdefault(str(one["label"]), []).append(one)
    return groups


def _time_line(label: str, group: list[dict[str, object]]) -> str:
    """An entrant's median times over its cells."""
    cells = [tag("td", len(group), kind="n")]
    for key in ("per_call", "network", "overhead"):
        values = sorted(float(str(one[key])) for one in group)
        cells.append(tag("td", figures(1e6 * values[len(values) // 2]), kind="n"))
    return f"<tr><td>{tag('code', label)}</td>{''.join(cells)}</tr>"


_TIME_HEAD = (
    "<caption><span>Medians over an entrant's cells, microseconds for each counted call; "
    "every run of every cell is in <code>times.csv</code>.</span></caption>"
    '<thead><tr><th scope="col">entrant</th><th scope="col" class="n">cells</th>'
    '<th scope="col" class="n">a call, in all</th><th scope="col" class="n">in the network</th>'
    '<th scope="col" class="n">outside it</th></tr></thead>'
)
_NEEDS = (
    "<noscript><p>Charts, pictures and the table of rows need JavaScript, which this page has "
    "inside; the numbers are in <code>report.md</code> and <code>rows.csv</code> beside it."
    "</p></noscript>"
)
_CHOICE = """<div class="bar" role="group" aria-label="What is shown">
<label>data <select id="case"></select></label>
<label>metric <select id="metric"></select></label>
<label>budget <select id="budget"></select></label>
</div>"""
_FRONT = """<h2 id="h-front">Error against network calls</h2>
<figure role="group" aria-labelledby="h-front">
<div id="legend" class="legend" role="group" aria-label="Entrants shown"></div>
<div class="tools"><label><input type="checkbox" id="fade"> fade what is off the front
</label></div>
<div id="front" class="panels"></div>
<figcaption id="front-caption"></figcaption></figure>"""
_EVERY = """<div class="tools"><label><input type="checkbox" id="every"> in this table and the
next: every data set and metric, not only those chosen above</label></div>"""
_EFFECTS = """<h2 id="h-effects">Where the error comes from</h2>
<figure role="group" aria-labelledby="h-effects"><div id="effect-legend" class="legend"></div>
<div id="effects" class="panels"></div>
<figcaption id="effects-caption"></figcaption></figure>"""
_WEIGHTS = """<h2 id="h-weights">Weights of the modes</h2>
<figure role="group" aria-labelledby="h-weights"><div id="mode-legend" class="legend"></div>
<div id="weights" class="panels"></div>
<figcaption id="weights-caption"></figcaption></figure>"""
_PICTURES = """<h2 id="h-pictures">Samples on their way</h2>
<figure role="group" aria-labelledby="h-pictures">
<div class="tools"><label>SDE <select id="sde"></select></label>
<label>noise <input type="range" id="time" min="0" max="0" step="1" aria-label="time t, from noise
to data"> data</label> <output id="moment" for="time"></output></div>
<div id="pictures" class="pictures"></div>
<figcaption id="pictures-caption"></figcaption></figure>"""
_ROWS = """<h2>Every row</h2>
<div class="tools"><label>filter <input type="search" id="filter"
placeholder="words that a row must have"></label>
<span class="pager"><button type="button" id="before">previous</button>
<button type="button" id="after">next</button></span>
<span id="row-count" class="quiet" role="status"></span></div>
<div class="wide long" tabindex="0" role="region" aria-label="Every row">
<table id="rows"><caption><span>One cell and metric a row; a heading sorts, again the other way.
OUT is the folder of this report. Values by seed and all digits are in <code>rows.csv</code> and
<code>rows.jsonl</code>.</span></caption><thead><tr></tr></thead><tbody></tbody></table></div>"""
_OVERHEAD = """<figure role="group" aria-label="Time outside the network">
<div id="sde-legend" class="legend"></div>
<div id="overhead" class="chart"></div>
<figcaption>Wall time of a run outside its network, by counted call; a point is the mean over the
seeds of one cell. One machine, one moment: no interval.</figcaption></figure>
"""
