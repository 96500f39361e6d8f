// What all parts share: the numbers, small elements, colours and shapes, the choice made above.
const D = JSON.parse(document.getElementById("numbers").textContent);
const SPECS = JSON.parse(document.getElementById("specs").textContent);
const TIMES = JSON.parse(document.getElementById("times").textContent);
const { vegaEmbed } = window.sdekitVega;
const R = D.rows;
const COUNT = R.cell.length;
const T = (index) => D.texts[index];
const $ = (id) => document.getElementById(id);

// Okabe and Ito's colours that show on white and on black; seven, against six shapes: 42 pairs
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8a8a"];
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"];
const colour = (s) => COLOURS[s % COLOURS.length];
const shape = (s) => SHAPES[s % SHAPES.length];

// An element: texts become text nodes, never markup.
function el(name, given = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function glyph(kind, fill, stroke = fill, size = 12) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  const d = {
    circle: "M6 1.5a4.5 4.5 0 1 0 .01 0z", square: "M2 2h8v8h-8z", "triangle-up": "M6 1l5 9h-10z",
    diamond: "M6 .5l5 5.5l-5 5.5l-5-5.5z", cross: "M4 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "triangle-down": "M6 11l5-9h-10z", tick: "M5 0h2v12h-2z",
  }[kind];
  for (const [key, value] of Object.entries({ width: size, height: size, viewBox: "0 0 12 12", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  for (const [key, value] of Object.entries({ d, fill, stroke, "stroke-width": 1.4 })) path.setAttribute(key, value);
  svg.append(path);
  return svg;
}

const fmt = (v) => (v === null || v === undefined ? "n/a" : String(Math.abs(v) >= 1000 ? Math.round(v) : Number(Number(v).toPrecision(4))));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;

// series: an entrant is a sampler on a grid
const seriesKey = new Map(D.series.map(([sampler, grid], k) => [`${sampler} ${grid}`, k]));
const seriesOf = (sampler, grid) => seriesKey.get(`${sampler} ${grid}`);
const GRIDS = new Set(D.series.map(([, grid]) => grid)).size;
const label = (s) => (GRIDS > 1 ? `${T(D.series[s][0])} on ${T(D.series[s][1])}` : T(D.series[s][0]));
const metricOf = new Map(D.metrics.map((m) => [m.key, m]));

const choice = { case: 0, metric: 0, budget: Math.max(0, (D.budgets.length - 1) >> 1), sde: 0, hidden: new Set() };
const listeners = [];
const changed = (what) => listeners.forEach((tell) => tell(what));

function fill(select, names, at) {
  select.replaceChildren(...names.map((name, k) => el("option", { value: k }, name)));
  select.selectedIndex = Math.max(0, at);
}

function bind(id, key, names) {
  const select = $(id);
  fill(select, names, choice[key]);
  select.addEventListener("change", () => {
    choice[key] = select.selectedIndex;
    changed(key);
  });
}

const budget = () => (D.budgets.length ? D.budgets[choice.budget] : Infinity);
const here = (item) => {
  const [data, model] = D.cases[choice.case] ?? [];
  return item.data === data && item.model === model;
};

// of each entrant on an SDE: the one with the most calls within the budget
function within(items, sde) {
  const found = new Map();
  for (const item of items) {
    if (item.sde !== sde || !here(item) || item.calls === null || item.calls > budget()) continue;
    const s = seriesOf(item.sampler, item.grid);
    const other = found.get(s);
    if (!other || item.calls > other.calls || (item.calls === other.calls && item.steps > other.steps)) found.set(s, item);
  }
  return [...found.entries()].sort((a, b) => a[0] - b[0]);
}

const rowItem = (k) => ({
  row: k, data: R.data[k], model: R.model[k], sde: R.sde[k], sampler: R.sampler[k],
  grid: R.grid[k], steps: R.steps[k], calls: R.calls[k],
});

// the tip beside the pointer: text only
function tip(lines, event) {
  const box = $("tip");
  box.hidden = !lines;
  if (!lines) return;
  box.replaceChildren(...lines.map((line, k) => el(k ? "div" : "b", {}, line)));
  const at = event.touches?.[0] ?? event;
  const wide = box.offsetWidth, high = box.offsetHeight;
  box.style.left = `${Math.max(4, Math.min(at.clientX + 14, innerWidth - wide - 8))}px`;
  box.style.top = `${at.clientY + 16 + high > innerHeight ? Math.max(4, at.clientY - high - 10) : at.clientY + 16}px`;
}
