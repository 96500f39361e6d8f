"""The charts of the page as Vega-Lite, made with Altair: shapes and scales, without a number.

The page has its numbers once, as JSON; its script hands each chart its rows as the named data
`points`, `front`, `floor`, `bars`, `totals` or `truth`. Fields have names of ours, colours and
shapes come with the rows (no scale), texts that others wrote are values and never names of fields
or expressions. `@y` and the like are places that the script fills with a title.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sdekit.compare.drawing import altair, vl_convert

__all__ = ["bundle", "specs"]

EFFECTS = {
    "initialisation": "#D55E00", "truncation": "#CC79A7", "discretisation": "#0072B2",
    "score": "#009E73", "interaction": "#999999",
}  # fmt: skip


@cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, for all charts of the page together."""
    snippet = "window.sdekitVega = { vegaEmbed };"
    made = vl_convert().javascript_bundle(snippet, vl_version=_version())
    return str(made).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _version() -> str:
    """The version of Vega-Lite that Altair's specs are written in."""
    return ".".join(altair().SCHEMA_VERSION.split(".")[:2])


@cache
def specs() -> dict[str, Any]:
    """Every chart, as plain JSON."""
    made = {
        "front": _front("log"),
        "front_linear": _front("linear"),
        "effects": _effects(),
        "weights": _weights(),
        "overhead": _overhead(),
    }
    return {name: _plain(chart) for name, chart in made.items()}


def _plain(chart: Any) -> dict[str, Any]:
    found: dict[str, Any] = chart.to_dict()
    found.pop("config", None)
    return found


def _own(kind: Any, field: str) -> Any:
    """A channel whose value is what stands in the field: no scale, no legend."""
    return kind(f"{field}:N", scale=None, legend=None)


def _front(scale: str) -> Any:
    """Calls against value: entrants, their intervals, the front, the floor."""
    alt = altair()
    ends = alt.param(name="y0", value=0.1), alt.param(name="y1", value=1)
    sides = alt.param(name="x0", value=1), alt.param(name="x1", value=10)
    x_scale = alt.Scale(
        type="log", domainMin=alt.ExprRef("x0"), domainMax=alt.ExprRef("x1"), nice=False
    )
    log = scale == "log"
    y_scale = alt.Scale(
        type=scale, domainMin=alt.ExprRef("y0"), domainMax=alt.ExprRef("y1"), nice=False,
        **({} if log else {"zero": False}),
    )  # fmt: skip
    x_axis = alt.Axis(
        title="network calls", values=alt.ExprRef("ticks"), grid=False, labelOverlap="greedy"
    )
    ticks = alt.param(name="ticks", value=[1, 10]), alt.param(name="yticks", value=[])
    own = {"values": alt.ExprRef("yticks")} if log else {"tickCount": 5}
    y_axis = alt.Axis(title="@y", format="~g", **own)
    x = alt.X("x:Q", scale=x_scale, axis=x_axis)

    def y(field: str) -> Any:
        return alt.Y(f"{field}:Q", scale=y_scale, axis=y_axis)

    def data(name: str) -> Any:
        return alt.Chart(alt.NamedData(name))

    band = data("floor").mark_rect(opacity=0.13, color="#888").encode(y=y("low"), y2="high:Q")
    rule = data("floor").mark_rule(strokeDash=[5, 4], color="#888").encode(y=y("y"))
    label = (
        data("floor")
        .mark_text(align="left", baseline="bottom", dx=4, dy=-4, color="#888", fontSize=10)
        .encode(y=y("y"), x=alt.value(0), text="label:N")
    )
    step = (
        data("front")
        .mark_line(interpolate="step-after", strokeWidth=6, opacity=0.17, clip=True)
        .encode(x=x, y=y("y"), stroke=_own(alt.Stroke, "ink"))
    )
    lines = (
        data("points")
        .mark_line(strokeWidth=1.2, opacity=0.55, clip=True)
        .encode(x=x, y=y("y"), stroke=_own(alt.Stroke, "colour"), detail="s:N", order="x:Q")
    )
    whiskers = (
        data("points")
        .mark_rule(strokeWidth=1.4, clip=True)
        .encode(x=x, y=y("low"), y2="high:Q", stroke=_own(alt.Stroke, "colour"))
    )
    points = (
        data("points")
        .mark_point(size=58, opacity=1, tooltip=alt.TooltipContent("data"))
        .encode(
            x=x, y=y("y"),
            fill=_own(alt.Fill, "fill"), stroke=_own(alt.Stroke, "ring"),
            strokeWidth=alt.StrokeWidth("thick:Q", scale=None, legend=None),
            shape=_own(alt.Shape, "shape"), description="label:N",
        )
    )  # fmt: skip
    layers = alt.layer(band, rule, label, step, lines, whiskers, points)
    return layers.add_params(*ends, *sides, *ticks).properties(width="container", height=260)


def _names(alt: Any) -> Any:
    """Entrants from the top down, in the order of the rows."""
    axis = alt.Axis(title=None, labelLimit=alt.ExprRef("room"), ticks=False, domain=False)
    return alt.Y(
        "label:N", sort=alt.EncodingSortField("k", op="min", order="ascending"), axis=axis
    )


def _room(alt: Any, chart: Any) -> Any:
    """As wide as the page lets it be; the script makes it as high as its rows need."""
    params = [alt.param(name="room", value=200)]
    return chart.add_params(*params).properties(width="container", height=100)


def _effects() -> Any:
    """The W2 effects of a sampler, stacked, and their sum."""
    alt = altair()
    scale = alt.Scale(domain=list(EFFECTS), range=list(EFFECTS.values()))
    bars = (
        alt.Chart(alt.NamedData("bars"))
        .mark_bar(tooltip=alt.TooltipContent("data"))
        .encode(
            x=alt.X("w2:Q", stack="zero", axis=alt.Axis(title="@x", format="~g", tickCount=5)),
            y=_names(alt), order="e:Q",
            color=alt.Color("effect:N", scale=scale, legend=None),
        )
    )  # fmt: skip
    total = (
        alt.Chart(alt.NamedData("totals"))
        .mark_tick(thickness=3, size=16, tooltip=alt.TooltipContent("data"))
        .encode(x="w2:Q", y=_names(alt), color=_own(alt.Color, "ink"))
    )
    return _room(alt, alt.layer(bars, total))


def _weights() -> Any:
    """The weights of the modes with intervals, against those of the data."""
    alt = altair()
    x = alt.X(
        "x:Q", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(title="@x", tickCount=5)
    )
    truth = (
        alt.Chart(alt.NamedData("truth"))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
        .encode(x=x, stroke=_own(alt.Stroke, "colour"))
    )
    whiskers = (
        alt.Chart(alt.NamedData("points"))
        .mark_rule(strokeWidth=1.6)
        .encode(x=alt.X("low:Q"), x2="high:Q", y=_names(alt), stroke=_own(alt.Stroke, "colour"))
    )
    dots = (
        alt.Chart(alt.NamedData("points"))
        .mark_point(opacity=1, strokeWidth=1.6, tooltip=alt.TooltipContent("data"))
        .encode(
            x=x, y=_names(alt), shape=_own(alt.Shape, "shape"), fill=_own(alt.Fill, "fill"),
            stroke=_own(alt.Stroke, "colour"), description="label:N",
            size=alt.Size("size:Q", scale=None, legend=None),
        )
    )  # fmt: skip
    return _room(alt, alt.layer(truth, whiskers, dots))


def _overhead() -> Any:
    """Time of a run outside its network, by call."""
    alt = altair()
    dots = (
        alt.Chart(alt.NamedData("points"))
        .mark_point(size=46, opacity=1, tooltip=alt.TooltipContent("data"))
        .encode(
            x=alt.X(
                "x:Q", scale=alt.Scale(type="log", nice=False, padding=12),
                axis=alt.Axis(title="@x", format="~g", tickCount=6, labelOverlap="greedy"),
            ),
            y=_names(alt), shape=_own(alt.Shape, "shape"), fill=_own(alt.Fill, "fill"),
            stroke=_own(alt.Stroke, "fill"),
        )
    )  # fmt: skip
    return _room(alt, alt.layer(dots))
