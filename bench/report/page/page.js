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
/* What a reader chooses lives in the address: #show=flax_nnx,haiku&size=wide&base=flax_nnx/pure */
const choices = [];
const choose = (name, title, box, table, apply) => {
  const usual = box.value, label = document.createElement("label");
  label.className = "filter";
  label.append(title, " ", box);
  table.closest(".scroll").before(label);
  box.addEventListener("input", () => {
    const changed = choices.filter(({ box, usual }) => box.value !== usual);
    history.replaceState(null, "", `#${new URLSearchParams(changed.map(({ name, box }) => [name, box.value]))}`);
    apply(box.value);
  });
  choices.push({ name, box, usual, apply });
};
const follow = () => {
  if (location.hash && !location.hash.includes("=")) return; // a part's name
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const { name, box, usual, apply } of choices) {
    box.value = chosen.get(name) ?? usual;
    box.value ||= usual; // what is not on offer
    apply(box.value);
  }
};
const time = (seconds) => {
  const [scale, unit] = Math.abs(seconds) < 1e-3 ? [1e6, "µs"] : [1e3, "ms"];
  return `${seconds < 0 ? "-" : "+"}${Number(Math.abs(seconds * scale).toPrecision(3))} ${unit}`;
};
/* Shows the rows of some styles. */
const first = document.querySelector("table");
const input = (options) => Object.assign(document.createElement("input"), options);
const select = (texts) => {
  const box = document.createElement("select");
  box.append(...texts.map((text) => new Option(text)));
  return box;
};
if (first)
  choose("show", "Only rows with", input({ type: "search", placeholder: "flax_nnx, haiku" }), first, (value) => {
    const words = value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
    for (const row of document.querySelectorAll("tbody tr"))
      row.hidden = words.length > 0 && !words.some((word) => row.textContent.replaceAll("\u00a0", " ").toLowerCase().includes(word));
  });
/* Shows steps at one size. */
const sizes = [...(first?.tHead.rows[0].cells ?? [])].map((head) => head.textContent.match(/^step at (.+)/)?.[1]);
const offered = sizes.filter(Boolean);
if (offered.length > 1)
  choose("size", "Steps at", select(["all sizes", ...offered]), first, (value) => {
    for (const { cells } of first.rows)
      sizes.forEach((size, i) => { cells[i].hidden = offered.includes(value) && offered.includes(size) && size !== value; });
  });
/* Compares with another style. Intervals hold for all rows together, so their ends may be divided or subtracted. */
if (first?.querySelector("[data-low]")) {
  const rows = [...first.tBodies[0].rows], box = select(rows.map((row) => row.cells[0].textContent.trim()));
  const added = [...rows[0].cells].map((_, i) => rows.some((row) => row.cells[i].dataset.added));
  const cells = rows.flatMap((row) => [...row.cells].slice(1)).map((cell) => [cell, cell.innerHTML, cell.className, cell.dataset.key]);
  const keys = new Map(cells.map(([cell, , , key]) => [cell, key]));
  const percent = (ratio) => (100 * (ratio - 1)).toFixed(1);
  const words = (middle, least, most, is_added) =>
    is_added ? `${time(middle)} (${time(least)} to ${time(most)})`
    : middle < 2 ? `${middle < 1 ? "" : "+"}${percent(middle)} % (${percent(least)} to ${percent(most)})`
    : `${middle.toFixed(2)} times (${least.toFixed(2)} to ${most.toFixed(2)})`;
  const margin = Number(first.dataset.margin), usual = box.value;
  const legend = [...document.querySelectorAll("p.line")].find((line) => line.textContent.startsWith(`Relative to ${usual}`));
  const about = legend?.textContent;
  choose("base", "Beside", box, first, (value) => {
    if (legend) legend.textContent = about.replace(usual, value);
    const base = rows.slice(1).find((row) => row.cells[0].textContent.trim() === value);
    for (const [cell, html, look, key] of cells) {
      [cell.innerHTML, cell.className] = [html, look];
      if (key !== undefined) cell.dataset.key = key;
      if (!base) continue;
      const i = cell.cellIndex, { low, high } = base.cells[i].dataset, mine = cell.dataset;
      cell.className = "number";
      if (cell.parentNode === base || low === undefined || mine.low === undefined) {
        cell.textContent = "–";
        continue;
      }
      const beside = (a, b) => added[i] ? a - b : a / b;
      mine.key = beside(key, keys.get(base.cells[i]));
      const ends = [beside(mine.low, high), beside(mine.high, low)], none = added[i] ? 0 : 1;
      const same = !added[i] && ends[0] >= 1 - margin && ends[1] <= 1 + margin;
      const mark = same ? "= " : ends[0] > none ? "▲ " : ends[1] < none ? "▼ " : "? ";
      if (mark === "? " && !added[i] && ends[1] > first.dataset.widest * ends[0]) {
        cell.textContent = first.dataset.unknown;
        continue;
      }
      cell.textContent = mark + words(Number(mine.key), ...ends, added[i]);
    }
  });
}
addEventListener("hashchange", follow);
follow();
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
