"use strict";
/* Filters and sorts the tables of index.html and shows run records. Whatever comes from a record is set as text, never as HTML. */

const FACTS = ["task", "method", "model"];
const { defaults, runs } = JSON.parse(document.getElementById("data").textContent);
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/* Filter ------------------------------------------------------------------------------------------------------------- */

const form = one("#filter");

function filter() {
  const wanted = FACTS.map((fact) => [fact, form.elements[fact]?.value]).filter(([, value]) => value);
  const words = form.elements.words.value.trim().toLowerCase();
  const fits = (element) => wanted.every(([fact, value]) => element.dataset[fact]?.includes(`|${value}|`) ?? true);
  const says = (element) => element.textContent.toLowerCase().includes(words);
  let tables = 0, lines = 0;
  for (const section of all("section.table")) {
    const table = one("table", section);
    if (!table) continue;
    const heading = [...table.tHead.rows[0].cells];
    const rows = all("tbody tr", table).filter((row) => one("[scope=row]", row));
    const named = one("h2", section);
    // Words are looked for in the title, else in the rows, else in the columns.
    const by = !words || says(named) ? "title" : rows.some((row) => says(row.cells[0])) ? "row" : "column";
    const first = section.id === "runs" ? heading.length : 2;
    const columns = heading.map((cell, number) => number < first || (fits(cell) && (by !== "column" || says(cell))));
    let shown = 0;
    for (const row of rows) {
      const stays = fits(row) && (by !== "row" || says(row.cells[0]));
      row.classList.toggle("out", !stays);
      if (stays) shown += 1;
    }
    for (const row of table.rows) {
      [...row.cells].forEach((cell, number) => cell.classList.toggle("out", cell.scope !== "rowgroup" && !columns[number]));
    }
    for (const body of table.tBodies) body.classList.toggle("out", !all("tr:not(.out)", body).some((row) => one("[scope=row]", row)));
    const stays = fits(section) && shown > 0 && (first === heading.length ? by !== "column" : columns.slice(first).some(Boolean));
    section.classList.toggle("out", !stays);
    one(`nav a[href="#${CSS.escape(section.id)}"]`)?.parentElement.classList.toggle("out", !stays);
    for (const part of all(".figures [data-task], .figures [data-method], .figures [data-model], .legend li", section)) {
      part.classList.toggle("out", !fits(part));
    }
    if (stays && section.id !== "runs") {
      tables += 1;
      lines += shown;
    }
  }
  const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
  one("output", form).textContent = wanted.length || words ? `${count(tables, "table")}, ${count(lines, "row")}` : "";
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));

/* Sort --------------------------------------------------------------------------------------------------------------- */

function key(row, number) {
  const cell = row.cells[number];
  const value = parseFloat(cell?.dataset.value ?? cell?.textContent.replace(/,/g, "").replace("−", "-"));
  return { value, text: cell?.textContent ?? "" };
}

function sort(table, number, order) {
  for (const body of table.tBodies) {
    const rows = all("tr", body).filter((row) => one("[scope=row]", row));
    rows.forEach((row, place) => { row.place ??= place; });
    const sorted = [...rows].sort((a, b) => {
      if (!order) return a.place - b.place;
      const [x, y] = [key(a, number), key(b, number)];
      const empty = isNaN(x.value) - isNaN(y.value); // what has no number stays below
      if (number && empty) return empty;
      const compared = number && !isNaN(x.value) ? x.value - y.value : x.text.localeCompare(y.text);
      return (order === "descending" ? -compared : compared) || a.place - b.place;
    });
    body.append(...sorted);
  }
}

for (const table of all("section.table > .scroll > table, section.table > .empty > .scroll > table")) {
  for (const [number, heading] of [...table.tHead.rows[0].cells].entries()) {
    const beside = [...heading.children].filter((child) => child.matches("small, details"));
    const button = make("button", { type: "button" }, ...[...heading.childNodes].filter((node) => !beside.includes(node)));
    heading.replaceChildren(button, ...beside);
    button.addEventListener("click", () => {
      const orders = number ? ["descending", "ascending", null] : ["ascending", "descending", null];
      const order = orders[(orders.indexOf(heading.getAttribute("aria-sort")) + 1) % 3];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (order) heading.setAttribute("aria-sort", order);
      sort(table, number, order);
    });
  }
}

/* Records ------------------------------------------------------------------------------------------------------------ */

const dialog = one("#record");
dialog.setAttribute("aria-labelledby", "record-title");
const digits = (value, most = 6) => typeof value !== "number" ? String(value)
  : Number.isInteger(value) ? value.toLocaleString("en").replace("-", "−")
  : Math.abs(value) < 1e-3 ? String(Number(value.toPrecision(most)).toExponential()) : value.toLocaleString("en", { maximumSignificantDigits: most }).replace("-", "−");
const score = (value) => (typeof value === "number" ? value.toFixed(1).replace("-", "−") : "–");
const scores = (found) => Object.entries(found ?? {}).map(([metric, value]) => `${score(value)} ${metric}`);
const duration = (seconds) => seconds < 100 ? `${digits(seconds, 3)} s` : seconds < 6000 ? `${(seconds / 60).toFixed(0)} min` : `${(seconds / 3600).toFixed(1)} h`;
const said = (value) => Array.isArray(value) ? value.map(said).join(", ") : value && typeof value === "object"
  ? Object.entries(value).map(([name, part]) => `${name} ${said(part)}`).join(", ") : value === null ? "–" : digits(value);

const pairs = (entries) => make("dl", { className: "pairs" }, entries.filter(([, value]) => value !== undefined && value !== null && value !== "")
  .map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "number" ? digits(value) : String(value)))));

function tile(name, value, more) {
  return value ? make("div", {}, make("dt", {}, name), make("dd", {}, value, more ? make("small", {}, more) : null)) : null;
}

function rows(name, heading, lines, className = "small") {
  const top = make("tr", {}, heading.map((text) => make("th", { scope: "col" }, text)));
  const body = lines.map((cells) => make("tr", {}, cells.map((text) => make("td", {}, text))));
  const table = make("table", { className }, make("caption", {}, name), make("thead", {}, top), make("tbody", {}, body));
  const box = make("div", { className: "scroll", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", name);
  return box;
}

/* A line with its ends and its extreme in words. */
function spark(name, points, best) {
  if (points.length < 2) return null;
  const svg = (tag, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const place = (value, values, from, to) => from + (to - from) * (value - Math.min(...values)) / (Math.max(...values) - Math.min(...values) || 1);
  const at = ([x, y]) => [place(x, xs, 4, 296), place(y, ys, 56, 4)];
  const marked = points.find(([x]) => x === best);
  const told = `${name}: ${digits(ys[0], 4)} at step ${digits(xs[0])}, ${digits(ys.at(-1), 4)} at step ${digits(xs.at(-1))}`;
  const line = svg("svg", { viewBox: "0 0 300 60", role: "img", "aria-label": told }, svg("polyline", { points: points.map((p) => at(p).join()).join(" ") }));
  if (marked) line.append(svg("circle", { cx: at(marked)[0], cy: at(marked)[1], r: 3.5 }));
  return make("figure", {}, line, make("figcaption", {}, told));
}

function record(run) {
  const { config, history, provenance = {}, timing = {} } = run;
  const metric = Object.keys(run.validation ?? {})[0];
  const set = Object.entries(config).filter(([name, value]) => defaults[name] !== value);
  const kept = Object.entries(config).filter(([name, value]) => defaults[name] === value);
  const share = run.total_params ? `${digits(100 * run.trainable_params / run.total_params, 2)}% of ${digits(run.total_params)}` : "";
  const shown = [
    make("dl", { className: "tiles" }, [
      tile("test", scores(run.test)[0], scores(run.test).slice(1).join(", ")),
      tile("validation", scores(run.validation)[0], scores(run.validation).slice(1).join(", ")),
      tile("best step", `${digits(run.best_step)}`, config.steps === undefined ? "" : `of ${digits(config.steps)}`),
      tile("trained parameters", digits(run.trainable_params), share),
      tile("rows", run.sizes ? digits(run.sizes.test) : "", run.sizes ? `test; ${digits(run.sizes.train)} training, ${digits(run.sizes.validation)} validation` : ""),
    ]),
    ...(run.notes ?? []).map((note) => make("p", { className: "hint" }, `Note: ${note}.`)),
    make("div", { className: "sparks" }, [
      spark(`validation ${metric}`, history.filter((entry) => entry.validation?.[metric] != null).map((entry) => [entry.step, entry.validation[metric]]), run.best_step),
      spark("training loss", history.filter((entry) => entry.train_loss != null).map((entry) => [entry.step, entry.train_loss])),
    ]),
    make("h3", {}, "Configuration"),
    pairs(set),
    make("details", {}, make("summary", {}, `${kept.length} fields at their defaults`), pairs(kept)),
  ];
  if (run.param_groups) {
    shown.push(make("h3", {}, "Parameter groups"), rows("Parameter groups", ["parameters", "rate", "count"],
      Object.entries(run.param_groups).map(([name, group]) => [name, digits(group.lr), digits(group.params)])));
  }
  if (history.length) {
    const thinned = run.evaluations > history.length ? ` (${history.length} of ${run.evaluations} evaluations)` : "";
    shown.push(make("h3", {}, `History${thinned}`), rows("History", ["step", "training loss", "validation", "time"], history.map((entry) => [
      digits(entry.step), entry.train_loss == null ? "–" : digits(entry.train_loss, 4), scores(entry.validation).join(", ") || "–",
      entry.seconds == null ? "–" : duration(entry.seconds),
    ])));
  }
  const measured = { ...timing, "peak memory": run.peak_memory_bytes ? `${(run.peak_memory_bytes / 2 ** 30).toFixed(1)} GiB` : undefined };
  for (const [name, value] of Object.entries(measured)) {
    if (typeof value === "number") measured[name] = name.endsWith("_seconds") ? duration(value) : digits(value, 4);
  }
  const extra = [["scoring agreement", run.scoring_agreement], ["offsets", run.offsets]].filter(([, value]) => value).map(([name, value]) => [name, said(value)]);
  const [spent, from] = [pairs(Object.entries(measured)), pairs([...Object.entries(provenance).map(([name, value]) => [name, name === "dirty" ? (value ? "yes" : "no") : value && said(value)]), ...extra])];
  if (spent.children.length) shown.push(make("h3", {}, "Time and memory"), spent);
  if (from.children.length) shown.push(make("h3", {}, "Where it comes from"), from);
  if (run.predictions) {
    shown.push(make("h3", {}, `First ${run.predictions.length} test rows`), rows("Predictions", ["row", "prediction", "reference", ""],
      run.predictions.map(([id, prediction, references]) => [id, prediction, references.join(" | "), references.includes(prediction) ? "✓ same" : ""]), "small texts"));
  }
  const files = [make("a", { href: run.file }, "record (JSON)")];
  if (run.predictions_file) files.push(" · ", make("a", { href: run.predictions_file }, "all predictions (JSON lines)"));
  shown.push(make("p", {}, files));
  return shown;
}

function show(ids, chosen, place) {
  const run = runs[chosen];
  const title = make("h2", { id: "record-title" }, run.run_id);
  const where = make("div", {}, title, place ? make("p", { className: "hint" }, place) : null);
  const close = make("button", { type: "button" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const body = make("div", { className: "body" });
  if (ids.length > 1) {
    const seeds = make("div", { className: "seeds" });
    seeds.setAttribute("role", "group");
    seeds.setAttribute("aria-label", "Runs of this cell");
    const tasks = new Set(ids.map((id) => runs[id].config.task)).size > 1;
    for (const id of ids) {
      const { seed, task } = runs[id].config;
      const button = make("button", { type: "button" }, [tasks ? task : null, seed === undefined ? null : `seed ${seed}`].filter(Boolean).join(", ") || id);
      button.setAttribute("aria-pressed", id === chosen);
      button.addEventListener("click", () => {
        show(ids, id, place);
        one("[aria-pressed=true]", dialog).focus();
      });
      seeds.append(button);
    }
    body.append(seeds);
  }
  body.append(...record(run));
  dialog.replaceChildren(make("header", {}, where, close), body);
  history.replaceState(null, "", `#${encodeURIComponent(run.anchor)}`);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-runs]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const ids = link.dataset.runs.split("\n");
  const cell = link.closest("td");
  const table = link.closest("table");
  const column = cell && one("button", table.tHead.rows[0].cells[cell.cellIndex])?.textContent;
  show(ids, ids[0], cell ? `${one("h2", link.closest("section")).textContent} · ${cell.parentElement.cells[0].textContent} · ${column}` : "");
});
for (const link of all("a[data-runs]")) link.setAttribute("aria-haspopup", "dialog");

function follow() {
  const anchor = decodeURIComponent(location.hash.slice(1));
  const folded = document.getElementById(anchor)?.querySelector(":scope > .empty");
  if (folded) folded.open = true;
  const run = Object.values(runs).find((one) => one.anchor === anchor);
  if (run) show([run.run_id], run.run_id, "");
}
addEventListener("hashchange", follow);
follow();

/* On paper everything is open. */
addEventListener("beforeprint", () => { for (const part of all("details:not([open])")) { part.open = true; part.dataset.closed = ""; } });
addEventListener("afterprint", () => { for (const part of all("details[data-closed]")) { part.open = false; delete part.dataset.closed; } });
