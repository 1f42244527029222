  /* Charts, in the colours of the page; drawn anew when those change. */
  const specs = document.getElementById("specs");
  if (!specs) return;
  const charts = JSON.parse(specs.textContent), dark = matchMedia("(prefers-color-scheme: dark)");
  function theme() {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
    const text = colour("--text"), soft = colour("--soft"), line = colour("--line");
    const narrow = document.documentElement.clientWidth < 640;
    return {
      aria: false, background: "transparent", font: "system-ui, sans-serif", view: { stroke: line },
      axis: { labelColor: text, titleColor: text, gridColor: line, domainColor: soft, tickColor: soft, labelFontSize: 12, titleFontWeight: "normal", gridOpacity: 0.5, labelLimit: narrow ? 100 : 220, labelOverlap: true },
      axisX: narrow ? { tickCount: 4 } : {},
      legend: { labelColor: text, titleColor: text, labelFontSize: 12, columns: narrow ? 2 : 6, layout: { bottom: { direction: "vertical" } } }, title: { color: text },
    };
  }
  function paint() {
    for (const place of document.querySelectorAll(".chart")) {
      const spec = charts[Number(place.dataset.chart)];
      globalThis.vegaEmbed(place, spec, { renderer: "svg", actions: false, config: theme(), tooltip: { theme: dark.matches ? "dark" : "light" } })
        .then(() => place.querySelector("svg").setAttribute("aria-hidden", "true")) // its place has the words
        .catch((error) => { place.textContent = `This chart could not be drawn: ${error.message}`; });
    }
  }
  /* The scripts that draw are compressed: most of a page would be theirs. */
  async function unpacked() {
    const packed = Uint8Array.from(atob(document.getElementById("vega").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }
  unpacked().then(() => {
    dark.addEventListener("change", paint);
    matchMedia("print").addEventListener("change", paint);
    paint();
  }).catch((error) => { for (const place of document.querySelectorAll(".chart")) place.textContent = `This chart could not be drawn: ${error.message}`; });
