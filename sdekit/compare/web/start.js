// Everything is bound and drawn once; a choice draws again what depends on it.
const named = (items) => items.map(([data, model]) => {
  const alone = new Set(D.cases.map(([d]) => d)).size === D.cases.length;
  return alone ? T(data) : `${T(data)}: ${T(model)}`;
});
bind("case", "case", named(D.cases));
bind("metric", "metric", D.metrics.map((m) => m.title));
bind("budget", "budget", D.budgets.map((b) => `up to ${b} calls`));
bind("sde", "sde", D.sdes.map(T));
if (D.series.length > 12) $("fade").checked = true;

const names = { front: ["case", "metric"], entrants: ["case", "budget"], pictures: ["case", "budget", "sde"] };
async function show(what) {
  const any = (list) => !what || list.includes(what);
  const work = [];
  if (any(names.front)) {
    chooseTables();
    legend();
    work.push(drawFront());
  }
  if (any(names.entrants)) work.push(drawEffects(), drawWeights());
  if (any(names.pictures)) drawPictures();
  if (!what) work.push(drawOverhead());
  await Promise.all(work);
}
listeners.push((what) => show(what));
$("fade").addEventListener("change", () => drawFront());
$("every").addEventListener("change", chooseTables);
$("time").addEventListener("input", paint);
document.addEventListener("click", (event) => {
  const code = event.target.closest?.("code.copy");
  if (code && navigator.clipboard) navigator.clipboard.writeText(code.textContent).catch(() => {}); // else it is selected
});
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show());
let wide = innerWidth;
window.addEventListener("resize", () => {
  if (innerWidth === wide) return;
  wide = innerWidth;
  paint();
});
$("effect-legend").replaceChildren(...D.effects.names.map((name) => {
  const layers = SPECS.effects.layer[0].encoding.color.scale;
  return el("span", {}, glyph("square", layers.range[layers.domain.indexOf(name)]), name);
}), el("span", {}, glyph("tick", css("--ink")), "total"));
$("sde-legend").replaceChildren(...D.sdes.map((s, k) => el("span", {}, glyph(shape(k), colour(k)), T(s))));
rowTable();
show().then(() => { document.documentElement.dataset.ready = "yes"; });
