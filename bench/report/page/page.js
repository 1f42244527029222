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
/* Shows the rows of some styles; the selection lives in the address: #show=flax_nnx,haiku */
const box = Object.assign(document.createElement("input"), { type: "search", placeholder: "flax_nnx, haiku" });
const select = () => {
  const words = box.value.toLowerCase().split(",").map((word) => word.trim()).filter(Boolean);
  for (const row of document.querySelectorAll("tbody tr"))
    row.hidden = words.length > 0 && !words.some((word) => row.textContent.toLowerCase().includes(word));
};
const follow = () => {
  if (location.hash.startsWith("#show=")) {
    try { box.value = decodeURIComponent(location.hash.slice(6)); } catch { box.value = ""; }
    select();
  }
};
if (document.querySelector("table")) {
  const label = document.createElement("label");
  label.className = "filter";
  label.append("Only rows with ", box);
  document.querySelector(".scroll").before(label);
  box.addEventListener("input", () => { select(); history.replaceState(null, "", `#show=${encodeURIComponent(box.value)}`); });
  addEventListener("hashchange", follow);
  follow();
}
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
