// Live runs: listens to what jobs say, draws their curves, and fetches what changed when one ends. Reading works without it.
"use strict";

(() => {
  const slug = document.body.dataset.slug;
  const place = document.querySelector(".running, [data-live]");
  if (!place || !window.EventSource) return;
  const jobs = new Map();
  const SVG = "http://www.w3.org/2000/svg";

  function element(name, className, text) {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function job(event) {
    let known = jobs.get(event.job);
    if (known) return known;
    const box = element("div", "job");
    const name = element("div", "", slug ? event.experiment : `${event.slug} ${event.experiment}`);
    const now = element("span", "meta");
    name.append(" ", now);
    const bar = element("progress");
    bar.max = 1;
    bar.setAttribute("aria-label", `Progress of ${event.experiment}`);
    const curves = element("div", "curves");
    box.append(name, bar, curves);
    place.querySelector(".jobs").append(box);
    place.hidden = false;
    known = { box, now, bar, curves, run: "", done: 0, of: 1, series: new Map() };
    jobs.set(event.job, known);
    return known;
  }

  function draw(known, metric, fraction, value) {
    let series = known.series.get(metric);
    if (!series) {
      const box = element("div", "curve");
      const label = element("div", "meta", `${metric} `);
      const number = element("b");
      label.append(number);
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", "0 0 100 40");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `${metric} while it runs`);
      const axis = document.createElementNS(SVG, "line");
      for (const [key, at] of [["x1", 0], ["x2", 100], ["y1", 40], ["y2", 40]]) axis.setAttribute(key, at);
      svg.append(axis);
      box.append(label, svg);
      known.curves.append(box);
      series = { number, svg, lines: new Map() };
      known.series.set(metric, series);
    }
    series.number.textContent = Number(value.toPrecision(4)).toString();
    if (!series.lines.has(known.run)) {
      const line = document.createElementNS(SVG, "polyline");
      series.svg.append(line);
      series.lines.set(known.run, { line, points: [] });
    }
    series.lines.get(known.run).points.push([fraction, value]);
    const values = [...series.lines.values()].flatMap((one) => one.points.map((point) => point[1]));
    const low = Math.min(...values), span = Math.max(...values) - low || 1;
    let left = series.lines.size;
    for (const { line, points } of series.lines.values()) {
      left -= 1;
      line.setAttribute("points", points.map(([x, y]) => `${100 * x},${38 - 36 * (y - low) / span}`).join(" "));
      line.setAttribute("opacity", left ? 0.3 : 1);
    }
  }

  const handle = {
    start(event, known) {
      known.run = event.id;
      known.done = event.done;
      known.of = event.of;
      known.now.textContent = `${event.variant}, seed ${event.seed}`;
      known.bar.value = event.done / event.of;
    },
    progress(event, known) {
      known.run = event.id;
      known.bar.value = (known.done + event.fraction) / known.of;
      for (const [metric, value] of Object.entries(event.metrics)) draw(known, metric, event.fraction, value);
    },
    run(event, known) {
      known.done = event.done;
      known.bar.value = event.done / known.of;
    },
    figure() {
      refresh();
    },
    end(event, known) {
      known.bar.value = 1;
      known.now.textContent = event.state + (event.message ? `: ${event.message}` : "");
      refresh();
      setTimeout(() => {
        known.box.remove();
        jobs.delete(event.job);
        place.hidden = jobs.size === 0;
      }, event.state === "done" ? 4000 : 30000);
    },
  };

  let waiting = 0;
  function refresh() {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const answer = await fetch(location.pathname + location.search, { headers: { accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const id of ["claims", "provenance", "jobs"]) {
        const old = document.getElementById(id), made = fresh.getElementById(id);
        if (old && made && !old.contains(document.activeElement)) old.replaceWith(document.adoptNode(made));
      }
      for (const made of fresh.querySelectorAll(".experiment")) {
        const old = document.getElementById(made.id);
        if (!old) continue;
        for (const figure of made.querySelectorAll("img")) figure.src = `${figure.getAttribute("src")}?t=${Date.now()}`;
        old.replaceWith(document.adoptNode(made));
      }
    }, 1500);
  }

  const source = new EventSource("/api/v1/events" + (slug ? `?slug=${encodeURIComponent(slug)}` : ""));
  source.addEventListener("open", () => {
    for (const known of jobs.values()) known.box.remove();
    jobs.clear();
  });
  source.addEventListener("job", (message) => {
    const event = JSON.parse(message.data);
    if (document.body.hasAttribute("data-runs") && event.kind === "start") refresh();
    if (handle[event.kind]) handle[event.kind](event, job(event));
  });
})();
