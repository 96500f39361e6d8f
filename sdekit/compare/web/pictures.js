// Samples over true points: one canvas an entrant, one slider for all of them.
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const unpacked = new Map();

function frame(packed, index) {
  if (!unpacked.has(packed)) unpacked.set(packed, bytes(packed.bytes));
  const data = unpacked.get(packed), [x0, y0, x1, y1] = packed.box[index];
  const found = [], start = 2 * packed.count * index;
  for (let p = start; p < start + 2 * packed.count; p += 2) {
    if (data[p] === 255 || data[p + 1] === 255) continue; // was not finite
    found.push([x0 + (x1 - x0) * data[p] / 254, y0 + (y1 - y0) * data[p + 1] / 254]);
  }
  return found;
}

// where t lies between two frames: points move straight from one to the other
function state(packed, t) {
  const times = packed.t;
  let k = 0;
  while (k < times.length - 2 && times[k + 1] > t) k++;
  if (times.length < 2) return frame(packed, 0);
  const part = Math.min(1, Math.max(0, (times[k] - t) / (times[k] - times[k + 1] || 1)));
  if (part <= 0) return frame(packed, k);
  if (part >= 1) return frame(packed, k + 1);
  const from = frame(packed, k), to = frame(packed, k + 1);
  return from.slice(0, to.length).map(([x, y], i) => [x + part * (to[i][0] - x), y + part * (to[i][1] - y)]);
}

let shownPictures = [];

function drawPictures() {
  const sde = D.sdes[choice.sde], box = $("pictures");
  shownPictures = within(D.pictures, sde).map(([s, packed]) => {
    const canvas = el("canvas", { role: "img", "aria-label": `samples of ${label(s)} over true points` });
    const panel = el("div", { class: "picture" }, el("h3", {}, glyph(shape(s), colour(s), colour(s), 10), " ", el("code", {}, label(s))), canvas,
      el("p", {}, `${fmt(packed.calls)} calls, ${packed.count} samples, cell ${T(packed.cell)}`));
    return { s, packed, canvas, panel };
  });
  box.replaceChildren(...shownPictures.map(({ panel }) => panel));
  if (!shownPictures.length) box.append(el("p", { class: "quiet" }, "No picture for this choice."));
  const longest = shownPictures.reduce((a, b) => (b.packed.t.length > (a?.length ?? 0) ? b.packed.t : a), null);
  const slider = $("time");
  slider.disabled = !longest;
  slider.max = longest ? 4 * (longest.length - 1) : 0;
  slider.dataset.times = JSON.stringify(longest ?? []);
  slider.value = slider.max;
  paint();
  const model = D.cases[choice.case];
  $("pictures-caption").textContent = !shownPictures.length ? "" :
    `Coloured: the states of one seed's samples (first two coordinates) at time t, each entrant within ${budget()} calls; grey: true points of ${model ? T(model[0]) : "the data"}. ` +
    `All panels share the window, which follows the samples; units of the data. No intervals: a picture, not a measurement. ` +
    (D.pictures.length < D.pictured_of
      ? `${D.pictures.length} of ${plural(D.pictured_of, "picture")} are in this page; where that of an entrant's cell is not, one of fewer calls stands for it.`
      : "");
}

function moment() {
  const slider = $("time"), times = JSON.parse(slider.dataset.times || "[]");
  if (!times.length) return 0;
  const at = slider.value / 4, k = Math.min(times.length - 1, Math.floor(at)), next = times[Math.min(times.length - 1, k + 1)];
  return times[k] + (at - k) * (next - times[k]);
}

function paint() {
  const t = moment();
  const states = shownPictures.map(({ packed }) => state(packed, t));
  const packedTruth = D.truth[D.cases[choice.case]?.[0]];
  const truth = packedTruth ? frame(packedTruth, 0) : [];
  // nine tenths of the samples of every panel, and all true points, are inside
  const sizes = [...truth.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y)))].sort((a, b) => a - b);
  let reach = sizes.length ? sizes.at(-1) * 1.05 : 0;
  for (const points of states) {
    const own = points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))).sort((a, b) => a - b);
    if (own.length) reach = Math.max(reach, own[Math.floor(0.9 * (own.length - 1))] * 1.1);
  }
  reach ||= 1;
  const slider = $("time"), output = $("moment");
  output.textContent = `t = ${fmt(t)}, window \u00b1${fmt(reach)}`;
  slider.setAttribute("aria-valuetext", output.textContent);
  const quiet = css("--quiet");
  shownPictures.forEach(({ s, canvas }, k) => {
    const side = Math.max(80, canvas.clientWidth), ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const dot = (points, style, size, alpha) => {
      pen.fillStyle = style;
      pen.globalAlpha = alpha;
      for (const [x, y] of points) {
        pen.beginPath();
        pen.arc(side / 2 + x / reach * side / 2, side / 2 - y / reach * side / 2, size, 0, 7);
        pen.fill();
      }
    };
    dot(truth, quiet, 1.3, 0.4);
    dot(states[k], colour(s), 1.9, 0.8);
  });
}
