  const DATA = JSON.parse(document.getElementById("data").textContent);
  const MORE = 200, ALL = "all";
  const MARKS = { equivalent: "= ", inconclusive: "? " };
  const $ = (id) => document.getElementById(id);
  const RUN = 0, ENTRANT = 1, STYLE = 2, WORKLOAD = 3, BACKEND = 4, FAILURE = 5, PROGRAM = 6, VALUES = 7;
  const PURE = "pure";
  const distinct = (column, rows = DATA.rows) => [...new Set(rows.map((row) => row[column]))];
  const nameOf = (row) => (row[STYLE] && row[STYLE] !== PURE ? `${row[ENTRANT]} ${row[STYLE]}` : row[ENTRANT]);

  const fresh = () => ({
    run: 0, workload: DATA.main, backend: DATA.backend, base: DATA.bases[0], show: "ratio", find: "",
    most: MORE, hidden: new Set(), unstyled: new Set(), columns: new Set(DATA.metrics.flatMap((m, i) => (m.shown ? [i] : []))),
    sort: "", down: false,
  });
  let state = fresh();

  /* The state is in the address: a link shows what its sender saw. */
  function toHash() {
    const plain = fresh(), query = new URLSearchParams();
    for (const key of ["run", "workload", "backend", "base", "show", "find", "sort", "most"])
      if (String(state[key]) !== String(plain[key])) query.set(key, state[key]);
    if (state.down) query.set("down", "1");
    if (state.hidden.size) query.set("hide", JSON.stringify([...state.hidden]));
    if (state.unstyled.size) query.set("styles", JSON.stringify([...state.unstyled]));
    const columns = [...state.columns].sort((a, b) => a - b).map((i) => DATA.metrics[i].name).join(",");
    if (columns !== DATA.metrics.filter((m) => m.shown).map((m) => m.name).join(",")) query.set("columns", columns);
    const text = query.toString();
    if (!text && location.hash && !location.hash.includes("=")) return; // a section's own address
    history.replaceState(null, "", text ? `#${text}` : location.pathname.split("/").pop() + location.search);
  }

  function fromHash() {
    state = fresh();
    if (!location.hash.includes("=")) return;
    const query = new URLSearchParams(location.hash.slice(1));
    const among = (key, known) => { const value = query.get(key); if (value !== null && known.includes(value)) state[key] = value; };
    const run = Number(query.get("run"));
    if (Number.isInteger(run) && run >= 0 && run < DATA.runs.length) state.run = run;
    among("workload", [ALL, ...distinct(WORKLOAD)]);
    among("backend", [ALL, ...distinct(BACKEND)]);
    among("base", Object.keys(DATA.ratios));
    among("show", ["ratio", "value"]);
    among("sort", ["name", "program", ...DATA.metrics.map((m) => m.name)]);
    state.find = query.get("find") || "";
    state.down = query.get("down") === "1";
    const most = Number(query.get("most"));
    if (Number.isInteger(most) && most > MORE) state.most = most;
    const names = (key) => { try { const found = JSON.parse(query.get(key) || "[]"); return new Set(Array.isArray(found) ? found.map(String) : []); } catch { return new Set(); /* somebody else's fragment */ } };
    state.hidden = names("hide");
    state.unstyled = names("styles");
    const columns = query.get("columns");
    if (columns !== null) {
      const wanted = columns.split(",");
      state.columns = new Set(DATA.metrics.flatMap((m, i) => (wanted.includes(m.name) ? [i] : [])));
    }
  }

  function three(value) {
    if (value === 0) return "0";
    return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value)))));
  }
  function amount(value, unit) {
    if (unit === "s") {
      for (const [name, scale] of [["s", 1], ["ms", 1e3], ["µs", 1e6]]) if (Math.abs(value) * scale >= 1) return `${three(value * scale)} ${name}`;
      return `${three(value * 1e9)} ns`;
    }
    if (unit === "B") {
      for (const [name, scale] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (Math.abs(value) >= scale) return `${three(value / scale)} ${name}`;
      return `${value} B`;
    }
    return unit === "nats" ? value.toFixed(3) : String(value);
  }
  /* The digits that an interval is worth, as in the terminal. */
  function ratio([middle, low, high]) {
    const most = middle < 2 ? 3 : middle < 10 ? 2 : middle < 100 ? 1 : 0;
    if (low === null && high === null) return middle.toFixed(Math.min(2, most));
    const from = low === null ? 0 : low, to = high === null ? middle + (middle - from) : high, half = (to - from) / 2;
    let digits = half > 0 ? Math.min(most, Math.max(0, Math.ceil(-Math.log10(half)))) : Math.min(2, most);
    const sides = (d) => [from, to].some((end) => Number(end.toFixed(d)) === 1 && Number(end.toFixed(3)) !== 1);
    while (digits < most && sides(digits)) digits += 1;
    const said = (value) => value.toFixed(digits);
    return high === null ? `${said(middle)} (>${said(from)})` : `${said(middle)} (${said(from)}–${said(to)})`;
  }

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  const ratiosOf = (index) => (DATA.ratios[state.base] || [])[index] || [];
  const isBase = (row) => row[ENTRANT] === state.base && (row[STYLE] === PURE || row[STYLE] === "");

  function chosen() {
    const find = state.find.trim().toLowerCase(), kept = [];
    DATA.rows.forEach((row, index) => {
      if (row[RUN] !== state.run) return;
      if (state.workload !== ALL && row[WORKLOAD] !== state.workload) return;
      if (state.backend !== ALL && row[BACKEND] !== state.backend) return;
      if (state.hidden.has(row[ENTRANT]) || state.unstyled.has(row[STYLE])) return;
      if (find && !`${nameOf(row)} ${row[WORKLOAD]}`.toLowerCase().includes(find)) return;
      kept.push(index);
    });
    if (!state.sort) return kept;
    const metric = DATA.metrics.findIndex((m) => m.name === state.sort);
    const key = (index) => {
      const row = DATA.rows[index];
      if (state.sort === "name") return nameOf(row);
      if (state.sort === "program") return row[PROGRAM];
      if (state.show === "ratio" && DATA.metrics[metric].timed) {
        if (isBase(row) && row[VALUES][metric] !== null) return 1;
        const found = ratiosOf(index)[metric];
        return found ? found[0] : null;
      }
      return row[VALUES][metric];
    };
    const keys = new Map(kept.map((index) => [index, key(index)]));
    const sign = state.down ? -1 : 1;
    return kept.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y) || a - b;
    });
  }

  function cellOf(row, index, i) {
    const metric = DATA.metrics[i], value = row[VALUES][i], cell = element("td", "", { class: "number", "data-label": metric.label });
    if (row[FAILURE] !== null || value === null) return cell;
    const plain = amount(value, metric.unit), found = metric.timed ? ratiosOf(index)[i] : null;
    if (!metric.timed || state.show === "value" || isBase(row) || !found) {
      cell.textContent = plain;
      if (metric.timed && state.show === "ratio" && !isBase(row)) cell.title = `no ratio to ${state.base}`;
    } else {
      const verdict = DATA.verdicts[found[3]];
      cell.textContent = (MARKS[verdict] || "") + ratio(found);
      cell.title = `${plain}; ${verdict || "no verdict"}`;
    }
    if (found && !isBase(row)) { const verdict = DATA.verdicts[found[3]]; if (verdict === "slower" || verdict === "faster") cell.classList.add(verdict); }
    return cell;
  }

  function header(name, label, numeric, title) {
    const cell = element("th", "", { scope: "col" }), button = element("button", label, { type: "button" });
    if (numeric) cell.className = "number";
    if (title) button.title = title;
    if (state.sort === name) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    button.addEventListener("click", () => {
      if (state.sort === name && state.down) { state.sort = ""; state.down = false; }
      else { state.down = state.sort === name; state.sort = name; }
      draw();
      const again = [...document.querySelectorAll("#main th button")].find((b) => b.textContent === label);
      if (again) again.focus();
    });
    cell.append(button);
    return cell;
  }

  function draw() {
    const start = performance.now(), rows = chosen();
    const filled = (i) => rows.some((index) => DATA.rows[index][VALUES][i] !== null);
    const columns = [...state.columns].sort((a, b) => a - b).filter(filled); // `host_cost` is tiny workloads' alone
    const shown = rows.slice(0, state.most), everywhere = state.workload === ALL, table = $("main");
    const programs = shown.some((index) => DATA.rows[index][PROGRAM]);
    const head = element("tr");
    head.append(header("name", "style", false));
    if (everywhere) head.append(element("th", "workload", { scope: "col" }));
    if (programs) head.append(header("program", state.base === DATA.bases[state.run] ? "program" : `program, beside ${DATA.bases[state.run]}'s`, false, "how the compiled program differs from the run's baseline"));
    for (const i of columns) head.append(header(DATA.metrics[i].name, DATA.metrics[i].label, true, DATA.metrics[i].title));
    const body = document.createDocumentFragment();
    for (const index of shown) {
      const row = DATA.rows[index], line = element("tr");
      line.append(element("th", nameOf(row), { scope: "row" }));
      if (everywhere) line.append(element("td", row[WORKLOAD] + (DATA.several ? ` on ${row[BACKEND]}` : ""), { "data-label": "workload" }));
      if (row[FAILURE] !== null) line.append(element("td", `failed: ${row[FAILURE]}`, { class: "failed", colspan: String(columns.length + programs) }));
      else {
        if (programs) line.append(element("td", row[PROGRAM], { "data-label": "program" }));
        for (const i of columns) line.append(cellOf(row, index, i));
      }
      body.append(line);
    }
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(body);
    const what = state.show === "ratio" ? `ratios to ${state.base}` : "medians";
    $("caption").textContent = `${what}, ${everywhere ? "all workloads" : DATA.sized[state.workload] || state.workload}${state.backend && state.backend !== ALL ? ` on ${state.backend}` : ""}${DATA.runs.length > 1 ? `, run ${DATA.runs[state.run]}` : ""}`;
    $("more").hidden = shown.length === rows.length;
    $("status").textContent = `${rows.length} of ${DATA.rows.filter((row) => row[RUN] === state.run).length} rows`;
    table.dataset.took = String(performance.now() - start);
    toHash();
  }

  function options(id, values, words = (value) => value) {
    const select = $(id);
    select.replaceChildren(...values.map((value) => element("option", words(value), { value })));
    select.closest("label").hidden = values.length < 2;
  }
  function boxes(id, items) {
    $(id).replaceChildren(...items.map(([label, on, change]) => {
      const box = element("input", "", { type: "checkbox" }), whole = element("label");
      box.checked = on;
      box.addEventListener("change", () => { change(box.checked); draw(); });
      whole.append(box, ` ${label}`);
      return whole;
    }));
  }
  /* Baselines that the chosen run has ratios to. */
  const bases = () => [...new Set([DATA.bases[state.run], ...Object.keys(DATA.ratios).filter((name) => DATA.rows.some((row, i) => row[RUN] === state.run && DATA.ratios[name][i]))])];
  function controls() {
    const many = (values) => (values.length > 1 ? [...values, ALL] : values);
    options("run", DATA.runs.map((_, i) => String(i)), (i) => DATA.runs[i]);
    const rows = DATA.rows.filter((row) => row[RUN] === state.run);
    options("workload", many(distinct(WORKLOAD, rows)), (name) => DATA.sized[name] || name);
    options("backend", many(distinct(BACKEND, rows)), (name) => name);
    options("baseline", bases());
    $("run").value = String(state.run);
    $("workload").value = state.workload;
    $("backend").value = state.backend;
    $("baseline").value = state.base;
    $("show").value = state.show;
    $("find").value = state.find;
    const toggle = (set) => (name) => [name, !set.has(name), (on) => (on ? set.delete(name) : set.add(name))];
    boxes("entrants", distinct(ENTRANT).map(toggle(state.hidden)));
    boxes("styles", distinct(STYLE).filter((name) => name).map(toggle(state.unstyled)));
    boxes("columns", DATA.metrics.map((m, i) => [m.label, state.columns.has(i), (on) => (on ? state.columns.add(i) : state.columns.delete(i))]));
  }
  const bind = (id, event, change) => $(id).addEventListener(event, () => { change($(id).value); draw(); });
  bind("run", "change", (value) => {
    const rows = DATA.rows.filter((row) => row[RUN] === Number(value));
    const there = (column, wanted) => (wanted === ALL || rows.some((row) => row[column] === wanted) ? wanted : rows.length ? rows[0][column] : wanted);
    state.run = Number(value);
    state.workload = there(WORKLOAD, state.workload);
    state.backend = there(BACKEND, state.backend);
    if (!bases().includes(state.base)) state.base = DATA.bases[state.run];
    controls();
  });
  bind("workload", "change", (value) => { state.workload = value; });
  bind("backend", "change", (value) => { state.backend = value; });
  bind("baseline", "change", (value) => { state.base = value; });
  bind("show", "change", (value) => { state.show = value; });
  bind("find", "input", (value) => { state.find = value; });
  $("reset").addEventListener("click", () => { state = fresh(); controls(); draw(); });
  $("more").firstElementChild.addEventListener("click", () => { state.most += MORE; draw(); });
  addEventListener("hashchange", () => {
    if (location.hash.includes("=")) { fromHash(); controls(); draw(); } else toHash(); // a section was gone to
  });
  addEventListener("beforeprint", () => { for (const each of document.querySelectorAll("details")) each.open = true; state.most = DATA.rows.length; draw(); });
  fromHash();
  controls();
  $("tools").hidden = false;
  draw();
