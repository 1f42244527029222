  /* Recomputes the first table for the numbers that a reader gives, as `bakeoff cost` does. */
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const [arrays, step, host] = ["arrays", "step", "host"].map($);
  const body = document.querySelector("main table tbody");
  const rows = new Map([...body.rows].map((row) => [row.cells[0].textContent.trim(), row]));

  const added = (value, low, high) => {
    const milli = Math.abs(value) >= 1e-3, scale = milli ? 1e3 : 1e6;
    const digits = milli ? 2 : Math.abs(value) >= 1e-5 ? 0 : 1;
    const text = (number) => (number * scale).toFixed(digits);
    return `${value < 0 ? "" : "+"}${text(value)} ${milli ? "ms" : "µs"} (${text(low)} to ${text(high)})`;
  };
  const percent = (fraction) => {
    const value = 100 * fraction;
    if (value === 0) return "0 %";
    return value >= 0.1 ? `${value.toFixed(value < 10 ? 1 : 0).replace(/\.0$/, "")} %` : `${Number(value.toPrecision(1))} %`;
  };
  const seconds = (value) => {
    const [unit, scale] = [["s", 1], ["ms", 1e-3], ["µs", 1e-6]].find(([, size]) => value >= size) || ["ns", 1e-9];
    const digits = Math.max(0, 2 - Math.floor(Math.log10(value / scale)));
    return `${(value / scale).toFixed(digits)} ${unit}`;
  };

  function update() {
    const n = arrays.valueAsNumber, own = step.valueAsNumber / 1e3, slower = host.valueAsNumber;
    const wrong = !(n >= 1) || !Number.isInteger(n) ? "parameter arrays: a whole number from 1" : !(own > 0) ? "milliseconds: more than 0" : !(slower > 0) ? "Python slower by a factor of: more than 0; 1 is the machine below" : "";
    $("status").textContent = wrong;
    if (wrong) return;
    const at = ({ fixed, each, covariance: [first, both, second], t, off }) => {
      const half = t * Math.sqrt(Math.max(0, first + 2 * n * both + n * n * second)), value = fixed + each * n;
      let [low, high] = [value - half, value + half];
      if (off && value > 0) [low, high] = [Math.min(low, low / (1 + Math.max(0, off[1]))), high / (1 + Math.min(0, off[0]))];
      return [value, low, high].map((end) => end * slower);
    };
    const found = DATA.styles.map((style) => [style, at(style)]).sort((a, b) => a[1][0] - b[1][0]);
    for (const [{ name, waits }, [value, low, high]] of found) {
      const row = rows.get(name), cost = Math.max(0, value);
      const least = Math.max(0, waits ? value : value - own) / own;
      [added(value, low, high), percent(cost / own), percent(least), cost ? seconds(100 * cost) : "any"]
        .forEach((text, i) => { row.cells[i + 1].textContent = text; });
      body.append(row);
    }
    document.querySelector("header .soft").textContent = `${n} parameter arrays, ${seconds(own)} a step`;
  }
  for (const input of [arrays, step, host]) input.addEventListener("input", update);
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("tools").hidden = false;
