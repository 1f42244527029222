  const DATA = JSON.parse(document.getElementById("data").textContent);
  const MORE = 200, ALL = "all";
  /* A number in the data is [number, text], a ratio [ratio, text, colour]; 0 stands for none. */
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
        if (isBase(row) && row[VALUES][metric]) return 1;
        const found = ratiosOf(index)[metric];
        return found ? found[0] : null;
      }
      return row[VALUES][metric] ? row[VALUES][metric][0] : null;
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
    if (row[FAILURE] !== null || !value) return cell;
    const found = metric.timed && !isBase(row) ? ratiosOf(index)[i] : 0;
    if (!found || state.show === "value") {
      cell.textContent = value[1];
      if (metric.timed && state.show === "ratio" && !isBase(row)) cell.title = `no ratio to ${state.base}`;
    } else {
      cell.textContent = found[1];
      cell.title = value[1];
    }
    if (found && found[2]) {
      cell.classList.add("heat", found[2]);
      cell.style.setProperty("--heat", `${Math.round(12 + 30 * Math.min(1, Math.abs(Math.log2(found[0])) / 2))}%`);
    }
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
    const filled = (i) => rows.some((index) => DATA.rows[index][VALUES][i]);
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
