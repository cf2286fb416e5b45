"use strict";
(() => {
  const began = performance.now();
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  // -- charts --------------------------------------------------------------------------------------------------------

  const axis = (label, more = {}) => ({
    label, labelSize: 22, labelFont: "12px system-ui", font: "12px system-ui", stroke: color("muted"),
    grid: {stroke: color("line"), width: 1}, ticks: {stroke: color("line"), width: 1}, ...more,
  });
  const short = (value) => (value == null ? "–" : Number(value.toPrecision(4)).toLocaleString("en-US", {maximumFractionDigits: 6}));

  function histogram() {
    const h = data.histogram, places = h.counts.map((_, n) => h.from + (n + 0.5) * h.width);
    const lines = {hooks: {draw: [(u) => {
      u.ctx.save();
      u.ctx.font = `${12 * devicePixelRatio}px system-ui`;
      for (const [name, at] of Object.entries(h.marks)) {
        const x = u.valToPos(at, "x", true);
        if (x > u.bbox.left + u.bbox.width) continue;
        u.ctx.strokeStyle = u.ctx.fillStyle = color("c1");
        u.ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
        u.ctx.beginPath();
        u.ctx.moveTo(x, u.bbox.top);
        u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
        u.ctx.stroke();
        const right = x > u.bbox.left + u.bbox.width * 0.85;
        u.ctx.textAlign = right ? "right" : "left";
        u.ctx.fillText(name, x + (right ? -5 : 5) * devicePixelRatio, u.bbox.top + 12 * devicePixelRatio);
      }
      u.ctx.restore();
    }]}};
    return [{
      scales: {x: {time: false, range: [h.from, h.from + h.counts.length * h.width]}, y: {range: (u, low, high) => [0, high * 1.2]}},
      axes: [axis("latency in ms"), axis("inferences")],
      series: [{label: "latency in ms", value: (u, v) => short(v)}, {
        label: "inferences", stroke: color("c0"), fill: color("c0"), width: 0, points: {show: false},
        paths: uPlot.paths.bars({size: [0.92, 200], align: 0}),
      }],
      plugins: [lines],
    }, [places, h.counts]];
  }

  function curve(values, unit) {
    const s = data.sweep, palette = ["c0", "c1", "c2", "c3", "c4", "c5", "c6"];
    return [{
      scales: {x: {time: false, distr: 3, log: 2}, y: {range: (u, low, high) => [0, high * 1.08]}},
      axes: [axis(s.axis, {values: (u, ticks) => ticks.map((t) => (s.x.includes(t) ? t : ""))}), axis(unit, {size: 70})],
      series: [{label: s.axis}, ...s.names.map((name, n) => ({
        label: name || unit, stroke: color(palette[n % palette.length]), width: 2, spanGaps: true, points: {show: true, size: 6},
        dash: n >= palette.length ? [6, 4] : undefined, value: (u, v) => short(v),
      }))],
    }, [s.x, ...values]];
  }

  const makers = {
    histogram, throughput: () => curve(data.sweep.throughput, data.sweep.unit), p99: () => curve(data.sweep.p99, "p99 in ms"),
  };
  const drawn = new Map();

  function draw(place) {
    drawn.get(place)?.destroy();
    place.textContent = "";
    const [options, values] = makers[place.dataset.chart]();
    const size = {width: Math.max(place.clientWidth, 260), height: 280};
    drawn.set(place, new uPlot({...size, cursor: {drag: {x: false, y: false}}, ...options}, values, place));
  }

  const charts = [...document.querySelectorAll("[data-chart]")];
  charts.forEach(draw);
  dark.addEventListener("change", () => charts.forEach(draw));
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => drawn.forEach((plot, place) => plot.setSize({width: Math.max(place.clientWidth, 260), height: 280})));
  });

  // -- tables --------------------------------------------------------------------------------------------------------

  // Headings sort: the table's ``data-first`` column at first, from most to least.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    const sort = (n, way) => {
      const numeric = heads[n].classList.contains("num");
      const read = (row) => { const told = row.cells[n].textContent; return numeric ? parseFloat(told) : told; };
      const keys = new Map(rows.map((r) => [r, read(r)]));
      const absent = (v) => v === "" || Number.isNaN(v);
      const order = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", {numeric: true});
      const sorted = [...rows].sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        return absent(x) - absent(y) || (absent(x) ? 0 : way * order(x, y));  // what is absent comes last
      });
      body.append(...sorted);
      heads.forEach((h, m) => (m === n ? h.setAttribute("aria-sort", way > 0 ? "ascending" : "descending") : h.removeAttribute("aria-sort")));
    };
    heads.forEach((h, n) => h.firstElementChild.addEventListener("click", () => {
      const now = h.getAttribute("aria-sort"), first = h.classList.contains("num") && n ? -1 : 1;
      sort(n, now === null ? first : now === "ascending" ? -1 : 1);
    }));
    if (table.dataset.first) sort(Number(table.dataset.first), -1);
  });

  const table = document.getElementById("nodes");
  if (table) {
    const rows = [...table.tBodies[0].rows], column = Number(table.dataset.first);
    const words = rows.map((r) => r.textContent.toLowerCase()), times = rows.map((r) => parseFloat(r.cells[column].textContent));
    const wanted = document.getElementById("filter"), operation = document.getElementById("op");
    const total = times.reduce((sum, t) => sum + t, 0);
    const filter = () => {
      const parts = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0, time = 0;
      rows.forEach((r, n) => {
        r.hidden = (operation.value !== "" && r.dataset.op !== operation.value) || !parts.every((p) => words[n].includes(p));
        if (!r.hidden) { count += 1; time += times[n]; }
      });
      const part = total ? ` (${(100 * time / total).toFixed(1)} %)` : "";
      document.getElementById("shown").textContent = `${count} of ${rows.length} nodes, ${time.toFixed(4)} ms${part}`;
    };
    wanted.addEventListener("input", filter);
    operation.addEventListener("change", filter);
    filter();

    // A row that a picture leads to must be there to be seen.
    const arrive = () => {
      const row = location.hash.startsWith("#n") ? document.getElementById(location.hash.slice(1)) : null;
      if (row?.hidden) { wanted.value = operation.value = ""; filter(); }
      row?.scrollIntoView({block: "center"});
    };
    addEventListener("hashchange", arrive);
  }

  // -- the graph -----------------------------------------------------------------------------------------------------

  const box = document.getElementById("graph-box");
  if (box) {
    const graph = document.getElementById("graph"), pane = graph.parentElement;
    const [, , width, height] = graph.getAttribute("viewBox").split(" ").map(Number);
    let scale = 1;
    const zoom = (to) => {
      const x = (pane.scrollLeft + pane.clientWidth / 2) / scale, y = (pane.scrollTop + pane.clientHeight / 2) / scale;
      scale = Math.min(Math.max(to, 0.05), 4);
      graph.setAttribute("width", width * scale);
      graph.setAttribute("height", height * scale);
      pane.scrollTo(x * scale - pane.clientWidth / 2, y * scale - pane.clientHeight / 2);
    };
    box.querySelectorAll("button[data-zoom]").forEach((b) => b.addEventListener("click", () =>
      zoom(b.dataset.zoom === "fit" ? (pane.clientWidth - 2) / width : scale * Number(b.dataset.zoom))));
    box.querySelectorAll("button[data-by]").forEach((b) => b.addEventListener("click", () => {
      box.dataset.by = b.dataset.by;
      box.querySelectorAll("button[data-by]").forEach((o) => o.setAttribute("aria-pressed", String(o === b)));
    }));
    if (width > pane.clientWidth) zoom(Math.max((pane.clientWidth - 2) / width, 0.5));
    pane.scrollTo((graph.clientWidth - pane.clientWidth) / 2, 0);
  }
  document.documentElement.dataset.drawnMs = (performance.now() - began).toFixed(1);
})();
