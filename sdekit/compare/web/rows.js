// The table of all rows: sorted by its headings, filtered by text, a hundred at a time.
const PAGE = 100;
const text = (key) => (k) => T(R[key][k]);
const num = (key) => (k) => R[key][k];
const COLUMNS = [
  ["status", text("status")], ["data", text("data")], ["model", text("model")], ["SDE", text("sde")],
  ["sampler", text("sampler")], ["grid", text("grid")], ["steps", num("steps"), true], ["calls", num("calls"), true],
  ["metric", (k) => metricOf.get(R.metric[k]).title], ["value", num("value"), true],
  ["95 % low", num("low"), true], ["95 % high", num("high"), true], ["floor", num("floor"), true],
  ["p", num("p_value"), true], ["n", (k) => (R.exact[k] ? null : R.n[k]), true], ["seeds", text("seeds")], ["reason", text("reason")],
  ["run it again", (k) => `sdekit compare --replay OUT --cell ${T(R.cell[k])}`],
];
// what is the same in all rows is said once, above the table
const ALIKE = COLUMNS.filter(([name, , isNumber]) => !isNumber && !["status", "metric", "run it again"].includes(name))
  .filter(([, get]) => COUNT > 1 && Array.from({ length: COUNT }, (_, k) => get(k)).every((v, _, all) => v === all[0]));
const SHOWN = COLUMNS.filter((column) => !ALIKE.includes(column));
const view = { column: null, down: false, page: 0, filter: "", order: [] };

function sorted() {
  const words = view.filter.toLowerCase().split(/\s+/).filter(Boolean);
  let found = Array.from({ length: COUNT }, (_, k) => k);
  if (words.length) {
    found = found.filter((k) => {
      const line = COLUMNS.map(([, get]) => get(k) ?? "").join(" ").toLowerCase();
      return words.every((word) => line.includes(word));
    });
  }
  if (view.column !== null) {
    const get = SHOWN[view.column][1], sign = view.down ? -1 : 1;
    const key = new Map(found.map((k) => [k, get(k)]));
    const none = (v) => v === null || v === undefined || v === "";
    found.sort((a, b) => {
      const x = key.get(a), y = key.get(b);
      if (none(x) || none(y)) return none(x) - none(y) || a - b; // what is not there is last, always
      return (x < y ? -sign : x > y ? sign : 0) || a - b;
    });
  }
  view.order = found;
}

function cellOf([name, get, isNumber], k) {
  const value = get(k);
  if (name === "run it again") return el("td", {}, el("code", { class: "copy", tabindex: "0", title: "click selects all of it" }, value));
  if (isNumber) {
    const none = name === "value" && value === null;
    return el("td", { class: "n" }, none ? "n/a" : value === null ? "" : fmt(value));
  }
  const coded = ["data", "model", "SDE", "sampler", "grid"].includes(name);
  return el("td", { class: ["reason", "metric", "seeds"].includes(name) ? name : null }, coded ? el("code", {}, value) : value);
}

function showRows() {
  const start = view.page * PAGE, end = Math.min(view.order.length, start + PAGE);
  const lines = view.order.slice(start, end).map((k) =>
    el("tr", { class: T(R.status[k]) === "FAILED" ? "FAILED" : null }, ...SHOWN.map((column) => cellOf(column, k))));
  $("rows").tBodies[0].replaceChildren(...lines);
  $("row-count").textContent = view.order.length
    ? `rows ${start + 1} to ${end} of ${view.order.length}${view.order.length < COUNT ? ` (filtered from ${COUNT})` : ""}` : `no row of ${COUNT} has this`;
  $("before").disabled = view.page === 0;
  $("after").disabled = end >= view.order.length;
}

function rowTable() {
  const heads = SHOWN.map(([name, , isNumber], index) => {
    const button = el("button", { type: "button" }, name);
    const head = el("th", { scope: "col", "aria-sort": "none", class: isNumber ? "n" : null }, button);
    button.addEventListener("click", () => {
      view.down = view.column === index ? !view.down : false;
      view.column = index;
      view.page = 0;
      heads.forEach((h, k) => h.setAttribute("aria-sort", k !== index ? "none" : view.down ? "descending" : "ascending"));
      sorted();
      showRows();
    });
    return head;
  });
  $("rows").tHead.rows[0].replaceChildren(...heads);
  const said = ALIKE.filter(([, get]) => get(0)).map(([name, get]) => `${name} ${get(0)}`);
  if (said.length) $("rows").caption.firstElementChild.append(` The same in all rows: ${said.join("; ")}.`);
  $("filter").addEventListener("input", () => {
    view.filter = $("filter").value;
    view.page = 0;
    sorted();
    showRows();
  });
  for (const [id, by] of [["before", -1], ["after", 1]]) {
    $(id).addEventListener("click", () => {
      view.page += by;
      showRows();
    });
  }
  sorted();
  showRows();
}

// winners and orders: rows of the question that is chosen above, or all
function chooseTables() {
  const [data, model] = D.cases[choice.case] ?? [], metric = D.metrics[choice.metric];
  const wanted = metric ? `${data} ${model} ${metric.key}` : "";
  const all = $("every").checked;
  for (const table of document.querySelectorAll("table.chosen")) table.classList.toggle("all", all);
  for (const line of document.querySelectorAll("table.chosen tbody tr")) {
    line.hidden = !all && line.dataset.about !== wanted;
  }
}
