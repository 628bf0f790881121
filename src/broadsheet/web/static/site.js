// What reading works without: buttons that copy, suggestions while one types, and live runs.
"use strict";

(() => {
  for (const block of document.querySelectorAll("pre")) {
    const around = document.createElement("div");
    around.className = "copied";
    block.replaceWith(around);
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      button.textContent = (await copy(block)) ? "Copied" : "Press Ctrl-C";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    around.append(block, button);
  }

  async function copy(block) {
    try {
      await navigator.clipboard.writeText(block.textContent);
      return true;
    } catch {  // not over HTTPS, or not allowed: select it, so that the keyboard copies it
      getSelection().selectAllChildren(block);
      return document.execCommand("copy");
    }
  }
})();

// Suggestions while one types: a combobox whose list holds links. Enter without a choice searches, as it does without JavaScript.
(() => {
  const input = document.getElementById("q"), list = document.querySelector(".suggestions");
  if (!input || !list) return;
  const status = document.createElement("p");
  status.className = "hidden";
  status.setAttribute("aria-live", "polite");
  input.form.append(status);
  list.id = "suggestions";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Papers and authors");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-autocomplete", "list");
  input.setAttribute("aria-controls", "suggestions");
  input.setAttribute("aria-expanded", "false");
  let chosen = -1, waiting = 0, asked = null;

  function close() {
    asked?.abort();
    clearTimeout(waiting);
    list.hidden = true;
    chosen = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function choose(place) {
    const options = [...list.children];
    chosen = (place + options.length + 1) % (options.length + 1);  // the place behind the last is the field itself
    options.forEach((option, k) => option.setAttribute("aria-selected", k === chosen));
    if (chosen === options.length) {
      chosen = -1;
      input.removeAttribute("aria-activedescendant");
    } else {
      input.setAttribute("aria-activedescendant", options[chosen].id);
      options[chosen].scrollIntoView({ block: "nearest" });
    }
  }

  function show(found) {
    list.replaceChildren(
      ...found.map((one, k) => {
        const option = document.createElement("a");
        option.id = `suggestion-${k}`;
        option.href = one.url;
        option.tabIndex = -1;
        option.setAttribute("role", "option");
        option.setAttribute("aria-selected", "false");
        option.textContent = one.text;
        if (one.kind === "author") {
          const note = document.createElement("span");
          note.className = "meta";
          note.textContent = ` author, ${one.papers} ${one.papers === 1 ? "paper" : "papers"}`;
          option.append(note);
        }
        return option;
      }),
    );
    chosen = -1;
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(found.length > 0));
    input.removeAttribute("aria-activedescendant");
    status.textContent = found.length ? `${found.length} ${found.length === 1 ? "suggestion" : "suggestions"}` : "";
  }

  input.addEventListener("input", () => {
    close();
    const text = input.value.trim();
    if (text.length < 2) return;
    waiting = setTimeout(async () => {
      asked = new AbortController();
      try {
        const answer = await fetch(`/api/v1/suggestions?q=${encodeURIComponent(text)}`, { signal: asked.signal });
        if (answer.ok && document.activeElement === input) show(await answer.json());
      } catch {
        // typed on meanwhile, or out of reach: searching still works
      }
    }, 120);
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown") choose(chosen + 1);
    else if (event.key === "ArrowUp") choose(chosen < 0 ? list.children.length - 1 : chosen - 1);
    else if (event.key === "Enter" && chosen >= 0) list.children[chosen].click();
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  list.addEventListener("mousedown", (event) => event.preventDefault());  // the field keeps the focus until the click
  input.addEventListener("blur", close);
})();

// Live runs: listens to what jobs say, draws their curves, and fetches what changed when one ends.

(() => {
  const slug = document.body.dataset.slug;
  const place = document.querySelector("[data-live]");
  if (!place || !window.EventSource) return;
  const jobs = new Map();
  const elsewhere = document.createElement("a");  // what runs, where its section is out of sight
  elsewhere.className = "elsewhere";
  elsewhere.href = `#${place.id}`;
  elsewhere.hidden = true;
  document.body.append(elsewhere);
  let inSight = false, heard = false;  // before the first word of the server, what it wrote into the page stands
  new IntersectionObserver((entries) => {
    inSight = entries.at(-1).isIntersecting;
    tell();
  }).observe(place);

  function tell() {
    const now = [...jobs.values()].filter((known) => !known.over);
    if (heard) place.hidden = jobs.size === 0;
    elsewhere.hidden = inSight || now.length === 0;
    if (!now.length) return;
    const first = now.find((known) => known.state !== "queued") || now[0];
    const others = now.length > 1 ? `, and ${now.length - 1} more` : "";
    elsewhere.textContent = `${first.name} ${first.state === "queued" ? "is queued" : `${percent(first)} %`}${others}`;
  }

  function percent(known) {
    return Math.floor(100 * Math.min(1, known.share));
  }

  function set(known, state, share) {
    known.state = state;
    known.share = share;
    known.bar.value = share;
    known.percent.textContent = state === "queued" ? "" : ` ${percent(known)} %`;
    tell();
  }
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
    const called = slug ? event.experiment : `${event.slug} ${event.experiment}`;
    const name = element("div", "", called);
    const now = element("span", "meta"), percent = element("span", "meta percent");
    percent.setAttribute("aria-hidden", "true");  // the bar says it, when asked and not at every step
    name.append(" ", now, percent);
    const bar = element("progress");
    bar.max = 1;
    bar.setAttribute("aria-label", `Progress of ${event.experiment}`);
    const curves = element("div", "curves");
    box.append(name, bar, curves);
    place.querySelector(".jobs").append(box);
    known = { box, name: called, now, percent, bar, curves, run: "", done: 0, of: 1, series: new Map(), over: false };
    jobs.set(event.job, known);
    set(known, "queued", 0);
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
    queued(event, known) {
      known.now.textContent = "queued";
    },
    start(event, known) {
      known.run = event.id;
      known.done = event.done;
      known.of = event.of;
      known.now.textContent = `${event.variant}, seed ${event.seed}`;
      set(known, "running", event.done / event.of);
    },
    progress(event, known) {
      known.run = event.id;
      set(known, "running", (known.done + event.fraction) / known.of);
      for (const [metric, value] of Object.entries(event.metrics)) draw(known, metric, event.fraction, value);
    },
    run(event, known) {
      known.done = event.done;
      set(known, "running", event.done / known.of);
    },
    figure() {
      refresh();
    },
    end(event, known) {
      known.over = true;
      set(known, event.state, event.state === "done" ? 1 : known.share);
      known.now.textContent = event.state + (event.message ? `: ${event.message}` : "");
      refresh();
      setTimeout(() => {
        known.box.remove();
        jobs.delete(event.job);
        tell();
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
  let old = false;  // what stands in the list was there before the connection
  function clear() {
    if (!old) return;
    old = false;
    heard = true;
    place.querySelector(".jobs").replaceChildren();
    jobs.clear();
    tell();
  }
  source.addEventListener("open", () => {
    old = true;
    setTimeout(clear, 2000);  // all that runs or waits is told again at once: after silence, nothing does
  });
  source.addEventListener("job", (message) => {
    clear();
    const event = JSON.parse(message.data);
    if (document.body.hasAttribute("data-runs") && (event.kind === "start" || event.kind === "queued")) refresh();
    if (handle[event.kind]) handle[event.kind](event, job(event));
  });
})();
