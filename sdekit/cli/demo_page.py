"""The page of `sdekit demo`: one file that needs nothing else, on any screen, light or dark."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

from sdekit._page import document
from sdekit._page import tag as _tag

__all__ = ["page"]

_STYLE = """
img { display: block; width: 100%; max-width: 38rem; height: auto; margin: 0 auto;
  background: #fff; border: 1px solid var(--line); border-radius: .4rem; }
img.small { max-width: 26rem; }
figcaption { max-width: 38rem; margin: .4rem auto 0; }
"""

# file -> (heading, text below it)
_FIGURES = {
    "waterfall.png": (
        "Where the error comes from, exactly",
        "T = 100 with the exact score, by quadrature and without a sample: how much each cause "
        "adds to the distance W2 to the data, and how it moves the large mode's weight from the "
        "data's (dashed) to what the chain returns. Stopping early and finite steps cost next "
        "to nothing: the start is the cause.",
    ),
    "weights.png": (
        "The weight of the large mode",
        "Bars: the share of samples in the large mode; error bars of two standard errors. "
        "The network is as right, or as wrong, as the exact score: what matters is the start.",
    ),
    "forward.png": (
        "The forward process does not forget",
        "Data after 0 to 100 steps of the chain, coloured by the mode they came from. At step "
        "T = 100 the modes still are apart; sampling starts from N(0, I), the last panel, where "
        "they are not.",
    ),
    "trajectories.png": (
        "The way back starts in the wrong place",
        "Paths of the reverse chain along the line through both modes, coloured by where they "
        "end. On the left the law that sampling starts from (grey) and the true one (line): they "
        "differ at T = 100 and are the same at T = 1000.",
    ),
    "samples.png": (
        "Samples over the true density",
        "Every contour is an eighth of the density of the one inside it.",
    ),
    "reverse.gif": (
        "The trained network at work",
        "The reverse process of T = 100 from N(0, I), coloured by where each sample ends.",
    ),
}


_FIRST = "waterfall.png"  # above the table of samples: it needs none


def page(summary: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The whole page as one text; nothing in it refers to anything outside."""
    settings = summary["settings"]
    truth = summary["truth"]
    trained = summary["runs"]["trained_100"]
    lead = (
        f"A well-known tutorial trains a DDPM with T = 100 steps on the mixture "
        f"{_tag('code', '0.2 N((3, 3), I) + 0.8 N((-3, -3), I)')}. Its samples do not look 80/20, "
        f"and they are not: the large mode gets {trained['weight']:.2f} instead of {truth:.2f}. "
        "The network is not to blame."
    )
    return document(
        "sdekit demo: why 80/20 comes out as 60/40",
        style=_STYLE,
        body=[
            "<h1>Why 80/20 comes out as 60/40, and how to mend it</h1>",
            f"<p>{lead}</p>",
            f'<p class="why">{escape(summary["sentence"])}</p>',
            *(_figure(name, data) for name, data in pictures.items() if name == _FIRST),
            _exactly(summary),
            _tag("h2", "The same from samples, with a trained network too"),
            _table(summary),
            *(_figure(name, data) for name, data in pictures.items() if name != _FIRST),
            "<h2>How this was made</h2>",
            f'<p class="quiet">{_made(summary)}</p>',
            f"<p>{_next(settings)}</p>",
        ],
    )


def _table(summary: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{escape(run['process'])}</td><td>{escape(run['model'])}</td>"
        f"<td>{escape(run['start'])}</td>"
        f'<td class="n">{run["weight"]:.3f} &plusmn; {run["stderr"]:.3f}</td></tr>'
        for run in summary["runs"].values()
    ]
    head = '<tr><th>process</th><th>score</th><th>start</th><th class="n">large mode</th></tr>'
    data = f'<tr><td colspan="3">in the data</td><td class="n">{summary["truth"]:.3f}</td></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}{data}</table></div>'


def _exactly(summary: Mapping[str, Any]) -> str:
    """The attribution as a table, and the exact weights of the runs that have one."""
    found = summary["exact"]
    large = found["attribution"]["mode"]
    rows = [
        f"<tr><td>{escape(name)}</td>"
        + "".join(f'<td class="n">{_number(effect[key])}</td>' for key in ("w2", "kl", "tv"))
        + f'<td class="n">{effect["weights"][large]:+.4f}</td></tr>'
        for name, effect in found["attribution"]["effects"].items()
    ]
    heads = ("W2", "KL", "TV", "weight")
    head = "<tr><th>cause</th>" + "".join(f'<th class="n">{h}</th>' for h in heads) + "</tr>"
    weights = [
        f"{escape(run['process'])} from {escape(run['start'])} {found['weights'][key]:.4f}"
        for key, run in summary["runs"].items()
        if key in found["weights"]
    ]
    return (
        f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'
        f"<p>Exact weights of the large mode: {', '.join(weights)}.</p>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _figure(name: str, data: bytes) -> str:
    heading, text = _FIGURES[name]
    kind = name.rpartition(".")[2]
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    small = ' class="small"' if kind == "gif" else ""
    return (
        f'{_tag("h2", heading)}\n<figure><img{small} alt="{escape(text)}" src="{source}">'
        f"\n{_tag('figcaption', text)}</figure>"
    )


def _made(summary: Mapping[str, Any]) -> str:
    settings, versions = summary["settings"], summary["versions"]
    chains = " and ".join(_tag("code", chain) for chain in settings["chains"])
    return (
        f"Chains {chains}; a multilayer perceptron of width {settings['width']} that predicts the "
        f"noise, {settings['training']} steps of {settings['batch']} samples by the simple loss; "
        f"ancestral sampling, and dopri5 on the probability flow of the VP SDE; "
        f"{settings['n']} samples a run with the exact score, {settings['n_network']} with a "
        f"network ({settings['n_long']} through 1000 steps); "
        f"seed {settings['seed']}. sdekit {escape(versions['sdekit'])}, torch "
        f"{escape(versions['torch'])}. All numbers are in {_tag('code', 'summary.json')}, the "
        f"samples in {_tag('code', 'samples.npz')}."
    )


def _next(settings: Mapping[str, Any]) -> str:
    del settings
    first = _tag("code", "sdekit train --target tutorial --sde vp --out runs/vp")
    second = _tag("code", "sdekit sample runs/vp --sampler heun --out vp.npz")
    return f"Go on: {first}, then {second}."
