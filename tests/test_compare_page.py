"""Claim: the page works where it is opened: offline, by keyboard, on a phone, with any names.

It is opened in a headless Chromium, where there is one, with the network off and every request,
exception and message of the console kept.
"""

from __future__ import annotations

import json
import re

import pytest
from browser_support import CHROMIUM, Browser
from compare_support import HOSTILE, SWD, W2, WEIGHTS, stored

from sdekit.compare import reporting

pytest.importorskip("altair", reason="the report extra is not installed")
pytest.importorskip("vl_convert", reason="the report extra is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the page with")

CANVASES = "[...document.querySelectorAll('#pictures canvas')].map((c) => c.toDataURL()).join(' ')"


def column(name: str) -> str:
    """The script that reads a column of the table of rows."""
    return f"""(() => {{
      const heads = [...document.querySelectorAll('#rows thead th')].map((h) => h.textContent);
      const at = heads.indexOf({json.dumps(name)});
      return [...document.querySelectorAll('#rows tbody tr')].map((r) => r.cells[at].textContent);
    }})()"""


def head(name: str) -> str:
    found = "[...document.querySelectorAll('#rows th button')]"
    return f"{found}.find((b) => b.textContent === '{name}')"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The page of five samplers on two SDEs, open."""
    folder = tmp_path_factory.mktemp("plain")
    made = stored(failing=("unipc(order=2)",), points=60)
    page = folder / "report.html"
    page.write_bytes(reporting.render(made)["report.html"])
    with Browser.open(page, folder / "profile") as tab:
        yield tab


def choose(tab, name: str, text: str) -> None:
    """Pick an option of one of the menus, as a user does."""
    picked = tab.run(f"""(() => {{
      const menu = document.getElementById('{name}'), names = [...menu.options];
      menu.selectedIndex = names.findIndex((o) => o.textContent === {json.dumps(text)});
      menu.dispatchEvent(new Event('change'));
      return menu.selectedIndex;
    }})()""")
    assert picked >= 0, text


def test_nothing_is_asked_for_and_nothing_fails(plain):
    assert plain.requests() == []
    assert plain.faults() == []


def test_every_chart_is_drawn(plain):
    counts = plain.run("""Object.fromEntries(['front', 'effects', 'weights', 'overhead'].map(
      (id) => [id, document.querySelectorAll(`#${id} svg`).length]))""")
    assert counts == {"front": 2, "effects": 2, "weights": 2, "overhead": 1}
    marks = plain.run(
        "document.querySelectorAll('#front svg .mark-symbol path').length"
    )  # 5 samplers, 4 numbers of steps, 2 SDEs, less the failed
    assert marks == 5 * 4 * 2 - 2
    for name in ("front", "effects", "weights", "pictures"):
        caption = plain.run(f"document.getElementById('{name}-caption').textContent")
        assert "units of the data" in caption or "probability" in caption


def test_the_metric_that_is_chosen_is_drawn_and_listed(plain):
    for title, unit in (("precision", "probability"), ("sliced W2", "units of the data")):
        choose(plain, "metric", title)
        plain.until(
            f"document.querySelector('#front svg').textContent.includes('{title} ({unit})')"
        )
        listed = plain.run("""[...new Set([...document.querySelectorAll('table.chosen tbody tr')]
          .filter((r) => !r.hidden).map((r) => r.cells[1].textContent))]""")
        assert listed == [title]
    plain.run("document.getElementById('every').click()")
    listed = plain.run("""new Set([...document.querySelectorAll('table.chosen tbody tr')]
      .filter((r) => !r.hidden).map((r) => r.cells[1].textContent)).size""")
    plain.run("document.getElementById('every').click()")
    assert listed == 6


def test_a_bar_without_an_upper_end_leaves_the_picture(tmp_path):
    """One row of three seeds that say little: the axis ends near the largest value."""
    made = stored(metrics=(SWD,))
    top = max(row["value"] for row in made.rows)
    made.rows[3]["high"] = 1e9 * top
    page = tmp_path / "report.html"
    page.write_bytes(reporting.render(made)["report.html"])
    with Browser.open(page, tmp_path / "profile") as tab:
        ticks = tab.run("""[...document.querySelectorAll('#front svg text')]
          .map((t) => Number(t.textContent)).filter((v) => !isNaN(v))""")
        assert tab.faults() == []
    assert len(ticks) > 4
    assert max(ticks) <= max(3 * top, *(row["calls"] for row in made.rows))


def test_the_slider_moves_every_picture_by_keyboard(plain):
    before = plain.run(CANVASES)
    assert before.count("data:image") == 5
    plain.run("document.getElementById('time').focus()")
    plain.key("ArrowLeft", 37)
    plain.until("!document.getElementById('moment').textContent.startsWith('t = 0,')")
    after = plain.run(CANVASES)
    assert all(a != b for a, b in zip(before.split(), after.split(), strict=True))
    plain.key("Home", 36)
    assert plain.run("document.getElementById('moment').textContent").startswith("t = 1,")
    plain.key("End", 35)
    assert plain.run("document.getElementById('moment').textContent").startswith("t = 0,")
    assert plain.run(CANVASES) == before


def test_the_table_sorts_both_ways_and_says_so(plain):
    for turn, state in enumerate(("ascending", "descending")):
        plain.run(f"{head('value')}.click()")
        values = plain.run(column("value"))
        numbers = [float(v) for v in values if v != "n/a"]
        assert numbers == sorted(numbers, reverse=bool(turn))
        said = plain.run("""[...document.querySelectorAll('#rows th')]
          .map((h) => h.ariaSort).filter((s) => s !== 'none')""")
        assert said == [state]


def test_values_that_are_none_are_last_in_both_directions(plain):
    plain.run("document.getElementById('filter').value = 'unipc'")
    plain.run("document.getElementById('filter').dispatchEvent(new Event('input'))")
    for _ in range(2):
        plain.run(f"{head('value')}.click()")
        values = plain.run(column("value"))
        assert len(values) == 4 * 2 * 6
        assert values[-12:] == ["n/a"] * 12
        assert "n/a" not in values[:-12]
    reasons = plain.run(column("reason"))
    assert all("NonFiniteError" in r for r in reasons[-12:])
    commands = plain.run(column("run it again"))
    assert all(c.startswith("sdekit compare --replay OUT --cell ") for c in commands)
    plain.run("document.getElementById('filter').value = ''")
    plain.run("document.getElementById('filter').dispatchEvent(new Event('input'))")


def test_a_tip_tells_a_point(plain):
    spot = plain.run("""(() => {
      document.getElementById('front').scrollIntoView();
      const box = document.querySelector('#front svg .mark-symbol path').getBoundingClientRect();
      return {x: box.x + box.width / 2, y: box.y + box.height / 2};
    })()""")
    plain.call("Input.dispatchMouseEvent", type="mouseMoved", **spot)
    plain.until("!document.getElementById('tip').hidden")
    text = plain.run("document.getElementById('tip').textContent")
    assert "95 % interval" in text
    assert "4 seeds (0, 1, 2, 3)" in text


def test_the_page_fits_a_phone(plain):
    plain.screen(400, 800)
    plain.until("innerWidth === 400")
    wide = plain.run("document.documentElement.scrollWidth")
    over = plain.run("""[...document.querySelectorAll('main > *, figure, figcaption, svg')].filter(
      (e) => !e.closest('.wide') && e.getBoundingClientRect().right > 401)
      .map((e) => e.outerHTML.slice(0, 80))""")
    plain.screen(1500)
    assert wide == 400
    assert over == []


def sparse():
    """One adaptive sampler with one seed and no interval, exact metrics, no picture, no truth."""
    made = stored(
        samplers={"adaptive_sde()": 1}, steps=(5, 10), seeds=1, metrics=(SWD, W2, WEIGHTS)
    )
    made.truth = {}
    for cell in made.cells:
        cell["spec"]["steps"] = None
        cell |= {"picture": None, "budget": None, "times": None}
    for one in made.rows:
        one |= {"steps": None, "stderr": None, "low": None, "high": None, "floor": None,
                "floor_stderr": None}  # fmt: skip
        one["value"] = min(one["value"], 0.0) if one["metric"] == SWD[0] else one["value"]
    return made


def empty():
    """Nothing has run yet."""
    made = stored()
    made.rows, made.cells, made.missing = [], [], 40
    return made


@pytest.mark.parametrize("made", [sparse, empty])
def test_what_is_not_there_is_said_and_fails_nothing(made, tmp_path):
    page = tmp_path / "report.html"
    page.write_bytes(reporting.render(made())["report.html"])
    with Browser.open(page, tmp_path / "profile") as tab:
        for k in range(tab.run("document.getElementById('metric').options.length")):
            tab.run(f"""(() => {{ const m = document.getElementById('metric');
              m.selectedIndex = {k}; m.dispatchEvent(new Event('change')); }})()""")
        tab.run("new Promise((done) => setTimeout(done, 300))")
        assert tab.faults() == []
        text = tab.run("document.querySelector('main').innerText")
    assert "No picture for this choice." in text
    assert not re.search(r"\b(NaN|undefined|null|Infinity|None|nan)\b", text)


def test_names_are_inert(tmp_path):
    """Fifteen hostile names for everything that has one: text, wherever they stand."""
    made = stored(
        name=" ".join(HOSTILE), datas=HOSTILE[2:4], sdes=HOSTILE[4:6], grids=HOSTILE[6:8],
        samplers={name: 1 + k / 10 for k, name in enumerate(HOSTILE)}, steps=(5,),
        failing=HOSTILE[:1], points=20, times=3, metrics=(SWD, W2, WEIGHTS),
    )  # fmt: skip
    for row in made.rows:
        row |= {"title": HOSTILE[0] + row["title"], "unit": HOSTILE[13], "reason": HOSTILE[12]}
    page = tmp_path / "report.html"
    page.write_bytes(reporting.render(made)["report.html"])
    with Browser.open(page, tmp_path / "profile") as tab:
        for menu in ("case", "metric", "budget", "sde"):
            for k in range(tab.run(f"document.getElementById('{menu}').options.length")):
                tab.run(f"""(() => {{ const m = document.getElementById('{menu}');
                  m.selectedIndex = {k}; m.dispatchEvent(new Event('change')); }})()""")
        tab.run("new Promise((done) => setTimeout(done, 500))")
        assert tab.requests() == []
        assert tab.faults() == []
        others = "document.querySelectorAll('img, iframe, object, a, b:not(#tip b)').length"
        assert tab.run(others) == 0
        labels = tab.run("[...document.querySelectorAll('#front svg [aria-label]')].length")
        assert labels > 0


def test_a_script_that_slipped_in_would_not_run(plain):
    """The page's policy stops inline handlers, added scripts, eval and images from elsewhere."""
    plain.run("""(() => {
      const box = document.createElement('div');
      box.innerHTML = '<img src="x:" onerror="window.harm = 1"><a onclick="window.harm = 2">a</a>';
      document.body.append(box);
      const script = document.createElement('script');
      script.textContent = 'window.harm = 3';
      document.body.append(script);
      box.querySelector('a').click();
      setTimeout(() => box.remove(), 100);
    })()""")
    plain.run("new Promise((done) => setTimeout(done, 200))")
    assert plain.run("window.harm === undefined")
    assert "script-src" in " ".join(plain.faults())
    plain.events.clear()
