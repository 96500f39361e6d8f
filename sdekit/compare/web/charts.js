// The charts: specs made with Altair, filled with rows. Nothing here evaluates a text as code:
// Vega interprets its expressions, and names are values.
const drawn = new Map(); // element -> its view

function config() {
  const ink = css("--ink"), quiet = css("--quiet"), line = css("--line");
  return {
    background: null, font: "system-ui, sans-serif",
    axis: { labelColor: quiet, titleColor: ink, gridColor: line, domainColor: line, tickColor: line,
      titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 11, gridOpacity: 0.6 },
    view: { stroke: null }, text: { color: quiet },
  };
}

function placed(spec, texts) {
  const walk = (node) => {
    if (Array.isArray(node)) return node.map(walk);
    if (node && typeof node === "object") {
      return Object.fromEntries(Object.entries(node).map(([k, v]) => [k, walk(v)]));
    }
    return typeof node === "string" && Object.hasOwn(texts, node) ? texts[node] : node;
  };
  return walk(spec);
}

const BAND = 18; // pixels of an entrant

async function draw(box, name, { data, texts = {}, params = {}, about, tell, bands }) {
  const spec = placed(SPECS[name], texts);
  spec.datasets = data;
  spec.description = about;
  if (bands) spec.height = BAND * bands;
  for (const param of spec.params ?? []) {
    if (Object.hasOwn(params, param.name)) param.value = params[param.name];
  }
  const tooltip = (handler, event, item, value) => tip(value ? tell(value) : null, event);
  const made = await vegaEmbed(box, spec, {
    mode: "vega-lite", actions: false, renderer: "svg", ast: true, defaultStyle: false,
    config: config(), tooltip, logLevel: 1, // errors
  });
  drawn.get(box)?.finalize();
  drawn.set(box, made.view);
}

// one panel for each SDE that has something; panels are made anew, their views let go
async function panels(id, items, show) {
  const box = $(id);
  for (const old of box.querySelectorAll(".chart")) {
    drawn.get(old)?.finalize();
    drawn.delete(old);
  }
  const made = items.map(({ sde }) => {
    const chart = el("div", { class: "chart" });
    return [el("div", { class: "panel" }, el("h3", {}, el("code", {}, T(sde))), chart), chart];
  });
  box.replaceChildren(...made.map(([panel]) => panel));
  if (!items.length) box.append(el("p", { class: "quiet" }, "Nothing to show for this choice."));
  await Promise.all(items.map((item, k) => show(made[k][1], item)));
}

function ticks(low, high) {
  const found = [], wide = high / low > 300; // then powers of ten alone
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    for (const m of wide ? [1] : [1, 2, 5]) if (power * m >= low && power * m <= high) found.push(power * m);
  }
  return found;
}

const spread = (values) => [Math.min(...values), Math.max(...values)];

function frontRows() {
  const metric = D.metrics[choice.metric];
  const found = [];
  let absent = 0;
  for (let k = 0; k < COUNT; k++) {
    if (R.metric[k] !== metric?.key || !here(rowItem(k))) continue;
    if (T(R.status[k]) === "ok" && R.value[k] !== null && R.calls[k]) found.push(k);
    else absent++;
  }
  return { metric, found, absent };
}

function about(k) {
  const metric = metricOf.get(R.metric[k]);
  const place = ["off the front", "off the front, within noise", "on the front"][R.front[k]];
  const lines = [
    label(seriesOf(R.sampler[k], R.grid[k])),
    `${metric.title}: ${fmt(R.value[k])} ${metric.unit}`,
    R.exact[k] ? "exact: no Monte Carlo error"
      : R.low[k] === null ? "interval not known" : `95 % interval ${fmt(R.low[k])} to ${fmt(R.high[k])}`,
    `${fmt(R.calls[k])} calls, ${fmt(R.steps[k])} steps; ${place}`,
  ];
  if (!R.exact[k]) {
    lines.push(`n = ${fmt(R.n[k])}, ${plural(R.seed_count[k], "seed")} (${T(R.seeds[k])})`);
    if (R.floor[k] !== null) lines.push(`floor ${fmt(R.floor[k])}: the same of two true sets`);
  }
  return [...lines, `cell ${T(R.cell[k])}`];
}

const REACH = 3; // times the largest value is what a bar can widen the picture to

async function drawFront() {
  const { metric, found, absent } = frontRows();
  const shown = found.filter((k) => !choice.hidden.has(seriesOf(R.sampler[k], R.grid[k])));
  const log = metric && !metric.larger && found.some((k) => R.value[k] > 0);
  const low = (k) => (R.low[k] === null ? R.value[k] : R.low[k]);
  const high = (k) => (R.high[k] === null ? R.value[k] : R.high[k]);
  const top = Math.max(...found.flatMap((k) => [R.value[k], R.floor[k] ?? R.value[k]]));
  // two or three seeds bound a skew value hardly from above: such bars leave the picture
  const reach = (k) => (log ? Math.min(high(k), REACH * top) : high(k));
  let values = found.flatMap((k) => [R.value[k], reach(k), R.floor[k]]).filter((v) => v !== null);
  let y = [0, 1], x = [1, 10];
  if (found.length) {
    if (log) {
      const floors = spread(found.map((k) => R.value[k]).filter((v) => v > 0));
      values = values.filter((v) => v > floors[0] / 10);
      values.push(...found.map(low).filter((v) => v > floors[0] / 2));
      y = spread(values);
      y = [y[0] / 1.25, y[1] * 1.25];
    } else {
      y = spread([...values, ...found.map(low)]);
      const room = 0.05 * (y[1] - y[0] || 1);
      y = [y[0] - room, y[1] + room];
    }
    x = spread(found.map((k) => R.calls[k]));
    x = [x[0] / 1.2, x[1] * 1.2];
  }
  const faint = css("--line"), ink = css("--ink"), page = css("--page");
  const fade = $("fade").checked;
  const bySde = D.sdes.map((sde) => ({ sde, all: found.filter((k) => R.sde[k] === sde), rows: shown.filter((k) => R.sde[k] === sde) }))
    .filter(({ all }) => all.length);
  let below = 0;
  await panels("front", bySde, (box, { sde, all, rows }) => {
    const points = rows.map((k) => {
      const s = seriesOf(R.sampler[k], R.grid[k]);
      const under = log && R.value[k] <= 0;
      below += under;
      const own = fade && !R.front[k] ? faint : colour(s);
      return {
        k, s, x: R.calls[k], y: under ? y[0] : R.value[k], label: `${label(s)}, ${fmt(R.calls[k])} calls: ${fmt(R.value[k])}`,
        low: Math.max(low(k), log ? y[0] : low(k)), high: high(k), colour: own,
        fill: R.front[k] === 0 && !fade ? page : own, ring: R.front[k] === 2 ? ink : own,
        thick: R.front[k] === 2 ? 1.8 : 1.4, shape: under ? "triangle-down" : shape(s),
      };
    });
    const front = all.filter((k) => R.front[k] === 2).map((k) => ({ x: R.calls[k], y: Math.max(R.value[k], log ? y[0] : R.value[k]), ink }))
      .sort((a, b) => a.x - b.x);
    if (front.length) front.push({ ...front.at(-1), x: x[1] });
    const floors = all.map((k) => R.floor[k]).filter((v) => v !== null && (!log || v > y[0]));
    const floor = [];
    if (!metric.exact && floors.length) {
      const sorted = [...floors].sort((a, b) => a - b);
      const edge = all.filter((k) => R.floor[k] !== null).flatMap((k) => [R.floor[k] - 2 * (R.floor_stderr[k] ?? 0), R.floor[k] + 2 * (R.floor_stderr[k] ?? 0)]);
      const [under, over] = spread(edge);
      floor.push({ y: sorted[sorted.length >> 1], low: Math.max(under, y[0]), high: Math.min(over, y[1]), label: "floor: two true sets" });
    }
    const last = T(D.cases[choice.case][0]);
    return draw(box, log ? "front" : "front_linear", {
      data: { points, front, floor }, texts: { "@y": `${metric.title} (${metric.unit})` },
      params: { y0: y[0], y1: y[1], x0: x[0], x1: x[1], ticks: ticks(x[0], x[1]), yticks: log ? ticks(y[0], y[1]) : [] },
      about: `Network calls against ${metric.title} on ${T(sde)}, ${last}: ${points.length} values.`,
      tell: (d) => about(d.k),
    });
  });
  const words = [];
  if (metric) {
    const counts = new Set(found.map((k) => R.n[k])), seeds = new Set(found.map((k) => R.seed_count[k]));
    words.push(`${metric.title} (${metric.unit}; ${metric.larger ? "larger" : "smaller"} is better) against counted network calls per sample, ${log ? "both axes logarithmic" : "calls logarithmic"}.`);
    words.push("Wide grey line and ringed points: the Pareto front; filled: off it only within noise; hollow: off it.");
    words.push(metric.exact ? "Exact values: no Monte Carlo error, no interval, no floor."
      : `Bars: 95 % intervals over seeds; n = ${[...counts].join(", ")} samples, ${[...seeds].join(", ")} seeds. Dashed: the floor, the same metric between two true sets of that size, with 2 standard errors.`);
    if (GRIDS === 1) words.push(`Grid: ${T(D.series[0][1])}.`);
    if (absent) words.push(`${plural(absent, "row")} n/a or FAILED: not drawn.`);
    if (below) words.push(`${plural(below, "value")} at or below zero: triangles at the lower edge.`);
  }
  $("front-caption").textContent = words.join(" ");
}

async function drawEffects() {
  const names = D.effects.names;
  const items = D.sdes.map((sde) => ({ sde, cells: within(D.effects.cells, sde) })).filter(({ cells }) => cells.length);
  await panels("effects", items, (box, { sde, cells }) => {
    const bars = [], totals = [], ink = css("--ink");
    for (const [s, cell] of cells) {
      const about = { k: s, label: label(s), calls: cell.calls, cell: T(cell.cell) };
      names.forEach((effect, e) => {
        if (cell.w2[e] !== null) bars.push({ ...about, e, effect, w2: cell.w2[e] });
      });
      totals.push({ ...about, effect: "total", w2: cell.w2[names.length], ink });
    }
    return draw(box, "effects", {
      bands: cells.length, data: { bars, totals }, texts: { "@x": "W2 to the data (units of the data)" },
      params: { room: Math.min(230, box.clientWidth * 0.42) },
      about: `Exact W2 by cause on ${T(sde)}, ${cells.length} samplers.`,
      tell: (d) => [d.label, `${d.effect}: ${fmt(d.w2)}`, `${fmt(d.calls)} calls, cell ${d.cell}`, "exact"],
    });
  });
  $("effects-caption").textContent = items.length
    ? `What each cause adds to the exact W2 distance to the data (units of the data), each entrant within ${budget()} calls; the mark is the total, causes and interaction sum to it. Computed from laws, not sampled: no n, no seeds, no interval, no floor.`
    : "No exact error budget for this choice: the sampler's law is not computed for this data, model or SDE.";
}

async function drawWeights() {
  const cells = D.weights.map((w) => ({ ...w, ...rowItem(w.row) }));
  const kinds = [false, true];
  let most = 0, modes = 0;
  const items = D.sdes.map((sde) => ({ sde, cells: kinds.flatMap((exact) => within(cells.filter((c) => Boolean(R.exact[c.row]) === exact), sde)) }))
    .filter(({ cells: own }) => own.length);
  await panels("weights", items, (box, { sde, cells: own }) => {
    const points = [], truth = new Map();
    for (const [s, cell] of own) {
      const order = cell.truth.map((_, m) => m).sort((a, b) => cell.truth[b] - cell.truth[a] || a - b).slice(0, 6);
      modes = Math.max(modes, cell.truth.length);
      most = Math.max(most, order.length);
      for (const m of order) {
        const exact = Boolean(R.exact[cell.row]), error = cell.stderr[m], w = cell.weights[m];
        if (w === null) continue;
        truth.set(m, { x: cell.truth[m], colour: colour(m) });
        points.push({ k: s, row: cell.row, m, label: label(s), x: w, truth: cell.truth[m], exact,
          low: error === null ? w : Math.max(0, w - 1.96 * error), high: error === null ? w : Math.min(1, w + 1.96 * error),
          colour: colour(m), fill: exact ? colour(m) : "transparent", size: exact ? 26 : 84, shape: shape(m) });
      }
    }
    return draw(box, "weights", {
      bands: new Set(points.map((p) => p.k)).size, data: { points, truth: [...truth.values()] }, texts: { "@x": "weight of the mode (probability)" },
      params: { room: Math.min(230, box.clientWidth * 0.42) },
      about: `Weights of the modes on ${T(sde)}.`,
      tell: (d) => [`${d.label}, mode ${d.m + 1}`, `weight ${fmt(d.x)}, in the data ${fmt(d.truth)}`,
        d.exact ? "exact" : `95 % interval ${fmt(d.low)} to ${fmt(d.high)}`, ...about(d.row).slice(3)],
    });
  });
  const truths = new Map(items.flatMap(({ cells: own }) => own.flatMap(([, c]) => c.truth.map((w, m) => [m, w]))));
  $("mode-legend").replaceChildren(...[...truths].sort((a, b) => b[1] - a[1]).slice(0, 6)
    .map(([m, w]) => el("span", {}, glyph(shape(m), colour(m)), `mode ${m + 1}: ${fmt(w)} of the data`)));
  const sampled = items.flatMap(({ cells: own }) => own.map(([, c]) => c.row)).filter((row) => !R.exact[row]);
  const k = sampled[0];
  $("weights-caption").textContent = items.length
    ? `Share of each mode (probability), each entrant within ${budget()} calls; dashed: its share in the data, of the same colour. Filled dots: exact, without Monte Carlo error. ${k === undefined ? "" : `Rings with bars: sampled, 95 % intervals (1.96 standard errors), n = ${fmt(R.n[k])}, ${plural(R.seed_count[k], "seed")}.`} The dashed truth is exact: no floor. ${modes > most ? `The ${most} heaviest of ${modes} modes.` : ""}`
    : "No metric of this experiment tells the modes' weights for this choice.";
}

async function drawOverhead() {
  const box = $("overhead");
  if (!TIMES.length) return;
  const points = TIMES.map((one, k) => ({ ...one, k, sdeName: one.sde, label: one.label, x: 1e6 * one.overhead,
    shape: SHAPES[D.sdes.findIndex((s) => T(s) === one.sde) % SHAPES.length], fill: COLOURS[Math.max(0, D.sdes.findIndex((s) => T(s) === one.sde)) % COLOURS.length] }))
    .filter((p) => p.x > 0);
  await draw(box, "overhead", {
    bands: new Set(points.map((p) => p.label)).size, data: { points }, texts: { "@x": "\u00b5s a call outside the network" },
    params: { room: Math.min(260, box.clientWidth * 0.4) }, about: "Time outside the network by call, for each entrant.",
    tell: (d) => [d.label, d.sdeName, `${fmt(d.x)} microseconds a call outside the network`, `${fmt(1e6 * d.network)} inside it`, `${fmt(d.calls)} calls, ${plural(d.runs, "run")}, cell ${d.cell}`],
  });
}

function legend() {
  const used = new Set(frontRows().found.map((k) => seriesOf(R.sampler[k], R.grid[k])));
  const buttons = [...used].sort((a, b) => a - b).map((s) => {
    const button = el("button", { type: "button", "aria-pressed": String(!choice.hidden.has(s)) }, glyph(shape(s), colour(s)), label(s));
    button.addEventListener("click", () => {
      if (!choice.hidden.delete(s)) choice.hidden.add(s);
      button.setAttribute("aria-pressed", String(!choice.hidden.has(s)));
      drawFront();
    });
    return button;
  });
  $("legend").replaceChildren(...buttons);
}
