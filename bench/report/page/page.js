"use strict";
/* Sorts a table by a column: ascending, descending, then as it was. */
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.key === undefined ? row.cells[i].textContent.trim() : Number(row.cells[i].dataset.key);
  const compare = (a, b) => typeof a === typeof b ? (typeof a === "number" ? a - b : a.localeCompare(b)) : typeof a === "number" ? -1 : 1;
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
      for (const cell of head.parentNode.cells) cell.removeAttribute("aria-sort");
      if (next) head.ariaSort = next;
      const sign = next === "descending" ? -1 : 1;
      body.append(...(next ? rows.toSorted((a, b) => sign * compare(key(a, i), key(b, i))) : rows));
    });
    head.replaceChildren(button);
  });
}
/* What a reader chooses lives in the address: #show=flax_nnx,haiku&arrays=150 */
const choices = [];
const choose = (name, options, table, apply) => {
  const box = Object.assign(document.createElement("input"), options), usual = box.value;
  const label = document.createElement("label");
  label.className = "filter";
  label.append(options.title, " ", box);
  table.closest(".scroll").before(label);
  box.addEventListener("input", () => {
    const chosen = new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
    chosen.set(name, box.value);
    history.replaceState(null, "", `#${chosen}`);
    apply(box.value);
  });
  choices.push((chosen) => { box.value = chosen.get(name) ?? usual; apply(box.value); });
};
const follow = () => {
  if (location.hash && !location.hash.includes("=")) return; // a part's name
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const choice of choices) choice(chosen);
};
/* Shows the rows of some styles. */
const first = document.querySelector("table");
if (first)
  choose("show", { type: "search", title: "Only rows with", placeholder: "flax_nnx, haiku" }, first, (value) => {
    const words = value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    for (const row of document.querySelectorAll("tbody tr"))
      row.hidden = words.length > 0 && !words.some((word) => row.textContent.toLowerCase().includes(word));
  });
/* Computes what a call costs with other numbers of arrays. */
const time = (seconds) => {
  const [scale, unit] = Math.abs(seconds) < 1e-3 ? [1e6, "µs"] : [1e3, "ms"];
  return `${seconds < 0 ? "-" : "+"}${Number(Math.abs(seconds * scale).toPrecision(3))} ${unit}`;
};
for (const table of document.querySelectorAll("table[data-arrays]"))
  choose("arrays", { type: "number", title: "Parameter arrays", min: 1, value: table.dataset.arrays }, table, (value) => {
    const unchanged = value === table.dataset.arrays && !table.dataset.changed; // with intervals
    if (unchanged || !(value > 0)) return;
    table.dataset.changed = "yes";
    const [, , , head] = table.tHead.rows[0].cells;
    head.firstChild.textContent = `with ${value} arrays`;
    for (const { cells: [, call, array, total] } of table.tBodies[0].rows) {
      total.dataset.key = Number(call.dataset.key) + value * array.dataset.key;
      total.textContent = time(total.dataset.key);
    }
  });
addEventListener("hashchange", follow);
follow();
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
