// Samples over true points, or images: one canvas an entrant, one slider for all of them.
const unpacked = new Map();

function bytes(packed) {
  if (!unpacked.has(packed)) unpacked.set(packed, Uint8Array.from(atob(packed.bytes), (c) => c.charCodeAt(0)));
  return unpacked.get(packed);
}

function frame(packed, index) {
  const data = bytes(packed), [x0, y0, x1, y1] = packed.box[index];
  const found = [], start = 2 * packed.count * index;
  for (let p = start; p < start + 2 * packed.count; p += 2) {
    if (data[p] === 255 || data[p + 1] === 255) continue; // was not finite
    found.push([x0 + (x1 - x0) * data[p] / 254, y0 + (y1 - y0) * data[p + 1] / 254]);
  }
  return found;
}

// between which two frames t lies, and how far
function place(times, t) {
  let k = 0;
  while (k < times.length - 2 && times[k + 1] > t) k++;
  if (times.length < 2) return [0, 0];
  return [k, Math.min(1, Math.max(0, (times[k] - t) / (times[k] - times[k + 1] || 1)))];
}

// points move straight from one frame to the other
function state(packed, t) {
  const [k, part] = place(packed.t, t);
  if (part <= 0) return frame(packed, k);
  if (part >= 1) return frame(packed, k + 1);
  const from = frame(packed, k), to = frame(packed, k + 1);
  return from.slice(0, to.length).map(([x, y], i) => [x + part * (to[i][0] - x), y + part * (to[i][1] - y)]);
}

// images stay until the next is nearer; rows and columns of them, a pixel apart
function tiles(pen, side, packed, t) {
  const [k, part] = place(packed.t, t), [h, w, c] = packed.image, data = bytes(packed);
  const across = Math.ceil(Math.sqrt(packed.count)), down = Math.ceil(packed.count / across);
  const sheet = el("canvas", { width: across * (w + 1) - 1, height: down * (h + 1) - 1 }), ink = sheet.getContext("2d");
  let from = (part > 0.5 ? k + 1 : k) * packed.count * h * w * c;
  for (let i = 0; i < packed.count; i++) {
    const tile = ink.createImageData(w, h);
    for (let p = 0; p < h * w; p++, from += c) {
      for (let channel = 0; channel < 3; channel++) tile.data[4 * p + channel] = data[from + (c === 3 ? channel : 0)];
      tile.data[4 * p + 3] = 255;
    }
    ink.putImageData(tile, (i % across) * (w + 1), Math.floor(i / across) * (h + 1));
  }
  const scale = side / Math.max(sheet.width, sheet.height);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(sheet, 0, 0, scale * sheet.width, scale * sheet.height);
}

let shownPictures = [];

const trueSamples = () => D.truth[D.cases[choice.case]?.[0]];

function drawPictures() {
  const sde = D.sdes[choice.sde], box = $("pictures"), truth = trueSamples();
  shownPictures = within(D.pictures, sde).map(([s, packed]) => {
    const canvas = el("canvas", { role: "img", "aria-label": `samples of ${label(s)}${packed.image ? "" : " over true points"}` });
    const panel = el("div", { class: "picture" }, el("h3", {}, glyph(shape(s), colour(s), colour(s), 10), " ", el("code", {}, label(s))), canvas,
      el("p", {}, `${fmt(packed.calls)} calls, ${packed.count} samples, cell ${T(packed.cell)}`));
    return { s, packed, canvas, panel };
  });
  const images = shownPictures.some(({ packed }) => packed.image);
  if (images && truth?.image) {
    const canvas = el("canvas", { role: "img", "aria-label": "true samples" });
    const panel = el("div", { class: "picture" }, el("h3", {}, "true samples"), canvas, el("p", {}, plural(truth.count, "sample")));
    shownPictures.unshift({ packed: { t: [0], ...truth }, canvas, panel });
  }
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
    (images
      ? `One seed's samples at time t, each entrant within ${budget()} calls, the same noise in the same place; grey levels and colours from the 1st to the 99th percentile of each panel's moment. `
      : `Coloured: the states of one seed's samples (first two coordinates) at time t, each entrant within ${budget()} calls; grey: true points of ${model ? T(model[0]) : "the data"}. ` +
        "All panels share the window, which follows the samples; units of the data. ") +
    "No intervals: a picture, not a measurement. " +
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
  const states = shownPictures.map(({ packed }) => (packed.image ? [] : state(packed, t)));
  const known = trueSamples();
  const truth = known && !known.image ? frame(known, 0) : [];
  // nine tenths of the samples of every panel, and all true points, are inside
  const sizes = [...truth.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y)))].sort((a, b) => a - b);
  const plane = states.some((points) => points.length) || truth.length;
  let reach = sizes.length ? sizes.at(-1) * 1.05 : 0;
  for (const points of states) {
    const own = points.map(([x, y]) => Math.max(Math.abs(x), Math.abs(y))).sort((a, b) => a - b);
    if (own.length) reach = Math.max(reach, own[Math.floor(0.9 * (own.length - 1))] * 1.1);
  }
  reach ||= 1;
  const slider = $("time"), output = $("moment");
  output.textContent = `t = ${fmt(t)}${plane ? `, window \u00b1${fmt(reach)}` : ""}`;
  slider.setAttribute("aria-valuetext", output.textContent);
  const quiet = css("--quiet");
  shownPictures.forEach(({ s, packed, canvas }, k) => {
    const side = Math.max(80, canvas.clientWidth), ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    if (packed.image) return tiles(pen, side, packed, t);
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
