"use strict";
// Shows what /events tells, once a second. Texts of the daemon are set as text, never as HTML.

const STAGES = ["read", "decode", "resize", "augment", "other", "idle"];
const KEPT = 600; // points, one a second
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

const SPANS = [60, 120, 300, KEPT]; // seconds that charts may show

let points = [];
let badCount = -1;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// -- numbers as text ---------------------------------------------------------------

const rate = (value) => (value < 999.95 ? value.toFixed(1) : value.toFixed(0));

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1023.95 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return unit ? `${bytes.toFixed(1)} ${units[unit]}` : `${bytes.toFixed(0)} B`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]];
  const first = Math.max(0, parts.findIndex(([count]) => count > 0));
  const from = parts.some(([count]) => count > 0) ? first : 3;
  return parts.slice(from, from + 2).filter(([count], at) => count > 0 || at === 0).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

function milliseconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  return seconds < 1 ? `${(seconds * 1000).toPrecision(2)} ms` : `${seconds.toPrecision(3)} s`;
}

// -- charts ------------------------------------------------------------------------

const span = () => SPANS.find((seconds) => seconds >= points.length) || KEPT;

function startOf(svg, count) {
  svg.setAttribute("viewBox", `0 0 ${span() - 1} 100`);
  return span() - count;
}

// Draws lines over the last minutes; values that are null leave no point.
function drawLines(svg, lines, highest) {
  const left = startOf(svg, points.length);
  lines.forEach((values, number) => {
    const line = svg.children[number] || svg.appendChild(shape("polyline", { class: "abc"[number] }));
    const dots = [];
    values.forEach((value, at) => {
      if (value !== null) dots.push(`${left + at},${(98 - (96 * Math.min(value, highest)) / highest).toFixed(1)}`);
    });
    line.setAttribute("points", dots.join(" "));
  });
}

function drawStack(svg, works) {
  const left = startOf(svg, works.length);
  const below = new Array(works.length).fill(0);
  STAGES.forEach((stage, number) => {
    const area = svg.children[number] || svg.appendChild(shape("polygon", { class: stage }));
    const lower = works.map((_, at) => `${left + at},${(100 - below[at]).toFixed(1)}`).reverse();
    works.forEach((work, at) => { below[at] += work[stage]; });
    const upper = works.map((_, at) => `${left + at},${(100 - below[at]).toFixed(1)}`);
    area.setAttribute("points", [...upper, ...lower].join(" "));
  });
}

// -- parts of the page ---------------------------------------------------------------

function chart(article, name) {
  const figure = article.querySelector(`[data-chart="${name}"]`);
  return { svg: figure.querySelector("svg"), caption: figure.querySelector("figcaption") };
}

function newStream(id) {
  const article = element("article", undefined, { id: `stream-${id}` });
  article.append(element("h3"), element("p", undefined, { class: "hint" }));
  const charts = element("div", undefined, { class: "charts" });
  for (const name of ["queue", "rate", "waits"]) {
    const figure = element("figure", undefined, { "data-chart": name });
    figure.append(shape("svg", { class: "chart", viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img" }),
      element("figcaption"));
    charts.append(figure);
  }
  const preview = element("div", undefined, { class: "preview" });
  const button = element("button", "Show the next samples", { type: "button" });
  button.addEventListener("click", () => showPreview(preview, id));
  preview.append(button);
  article.append(charts, preview);
  return article;
}

function showPreview(box, id) {
  box.querySelector("img")?.remove();
  box.querySelector("p")?.remove();
  const image = element("img", undefined, { alt: `The next samples of stream ${id}, as the trainer gets them`,
    src: `/preview/${id}.png?at=${Date.now()}` });
  image.addEventListener("error", async () => {
    const answer = await fetch(`/preview/${id}.png`);
    image.replaceWith(element("p", answer.ok ? "The picture cannot be shown." : await answer.text()));
  });
  box.append(image);
}

function showStream(stream) {
  const box = byId("streams");
  const article = byId(`stream-${stream.id}`) || box.appendChild(newStream(stream.id));
  const shared = stream.share ? `, shared as “${stream.share}”${stream.detached ? " (detached)" : ""}` : "";
  const shard = stream.shard ? `, shard ${stream.shard}` : "";
  article.querySelector("h3").textContent = `${stream.id}: ${stream.directory}`;
  article.querySelector("p").textContent = `process ${stream.client_pid}${shard}${shared}; epoch ${stream.epoch}, ` +
    `batch ${stream.position} of ${stream.batches_per_epoch}; ${stream.batch_size} images in a batch; ` +
    `${stream.errors} errors; waited ${stream.waited_percent.toFixed(1)} % of the last second`;
  const mine = points.map((point) => point.streams.find((one) => one.id === stream.id) || null);
  const of = (field) => mine.map((one) => (one === null ? null : one[field]));
  show(chart(article, "queue"), [of("ready")], `Queue: ${stream.ready} of ${stream.slots} batches are ready`, String, stream.slots);
  show(chart(article, "rate"), [of("images_per_s")], `Images/s: ${rate(stream.images_per_s)}`, String);
  show(chart(article, "waits"), [of("wait_p50_s"), of("wait_p95_s"), of("wait_p99_s")],
    `The trainer’s waits for a batch: half up to ${milliseconds(stream.wait_p50_s)}, ` +
    `95 % ${milliseconds(stream.wait_p95_s)} (dashed), 99 % ${milliseconds(stream.wait_p99_s)} (dotted)`, milliseconds);
}

// A chart up to a round number, which the caption names.
function show({ svg, caption }, lines, text, unit, top) {
  const highest = top || roundUp(Math.max(1e-6, ...lines.flat().filter((value) => value !== null)));
  drawLines(svg, lines, highest);
  svg.setAttribute("aria-label", text);
  const isEmpty = !lines.flat().some((value) => value > 0);
  caption.textContent = isEmpty ? `${text}.` : `${text}. Up to ${unit(highest)}, last ${duration(span())}.`;
}

function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((times) => times * unit >= value) * unit;
}

function showStreams(streams) {
  byId("no-stream").hidden = streams.length > 0;
  const open = new Set(streams.map((stream) => `stream-${stream.id}`));
  for (const article of [...byId("streams").children]) if (!open.has(article.id)) article.remove();
  streams.forEach(showStream);
}

function showWork(work) {
  const box = byId("work");
  const legend = byId("work-legend");
  STAGES.forEach((stage, number) => {
    const part = box.children[number] || box.appendChild(element("span", undefined, { class: stage }));
    part.style.flex = `${work[stage]} 0 0`;
    let entry = legend.children[number];
    if (!entry) {
      entry = legend.appendChild(element("li"));
      entry.append(element("i", undefined, { class: stage }), element("span"));
    }
    entry.lastChild.textContent = `${stage} ${work[stage].toFixed(0)} %`;
  });
  box.setAttribute("aria-label", STAGES.map((stage) => `${stage} ${work[stage].toFixed(0)} percent`).join(", "));
  drawStack(byId("work-chart"), points.map((point) => point.work));
}

function showRows(table, rows) {
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, number) => {
    const row = body.rows[number] || body.insertRow();
    cells.forEach((text, at) => {
      const cell = row.cells[at] || row.insertCell();
      if (cell.textContent !== text) cell.textContent = text;
    });
  });
}

function showWorkers(report) {
  byId("workers-text").textContent = `${report.workers.length} of ${report.workers_wanted} are up, ` +
    `${report.restarts} were replaced`;
  showRows(byId("workers"), report.workers.map((one) => [String(one.pid), duration(one.up_s), String(one.rows),
    one.rows ? `${((100 * one.cached) / one.rows).toFixed(0)} %` : "–",
    `${((100 * one.busy_s) / Math.max(one.up_s, 0.001)).toFixed(0)} %`,
    `${((100 * one.delayed_s) / Math.max(one.up_s, 0.001)).toFixed(0)} %`]));
  const count = byId("worker-count");
  if (document.activeElement !== count && !count.value) count.value = report.workers_wanted;
}

function showRemote(report) {
  byId("remote-section").hidden = !report.remote_wanted && !report.remote.length;
  byId("remote-trouble").textContent = report.remote_trouble;
  showRows(byId("remote"), report.remote.map((one) => [one.host, String(one.workers), rate(one.images_per_s),
    size(one.crossed_per_s), `${one.link_percent.toFixed(0)} %`, one.declined || "–"]));
}

function showMemory(report) {
  const { host, daemon } = report;
  const rows = [["Rings", `${size(host.ring_bytes)} of ${size(host.ring_limit)}`],
    ["Caches in memory", `${size(host.cache_bytes)} of ${size(host.cache_limit)}`],
    ["Shared memory that is free", `${size(host.shm_free)} of ${size(host.shm_total)}`],
    ["CPUs", `${host.cpus}, ${host.cpu_percent.toFixed(0)} % used`],
    ["Caches on disk", daemon.cache_dir]];
  const box = byId("memory");
  rows.forEach(([name, text], number) => {
    if (!box.children[2 * number]) box.append(element("dt", name), element("dd"));
    box.children[2 * number + 1].textContent = text;
  });
}

async function showBad(count) {
  if (count === badCount) return;
  badCount = count;
  byId("no-bad").hidden = count > 0;
  byId("bad-box").hidden = count === 0;
  if (!count) return;
  const answer = await fetch("/api/bad");
  if (!answer.ok) { badCount = -1; return; }
  const { images } = await answer.json();
  showRows(byId("bad"), images.map((one) => [one.path, one.reason, String(one.times)]));
}

function showReport(report) {
  const { daemon, verdict } = report;
  byId("gone").hidden = !daemon.trouble;
  byId("gone").textContent = daemon.trouble;
  byId("name").textContent = `“${daemon.name}”`;
  byId("about").textContent = `process ${daemon.pid}, up ${duration(daemon.uptime_s)}, version ${daemon.version}` +
    `${daemon.private ? ", private" : ""}${daemon.draining ? ", ending" : ""}`;
  const box = byId("verdict");
  if (box.textContent !== verdict.text) box.textContent = verdict.text;
  box.dataset.bound = verdict.bound;
  showStreams(report.streams);
  showWork(report.work_percent);
  showWorkers(report);
  showRemote(report);
  showMemory(report);
  showBad(daemon.bad);
  document.body.dataset.time = report.time;
}

// -- actions -------------------------------------------------------------------------

function confirmed(text) {
  const dialog = byId("confirm");
  byId("confirm-text").textContent = text;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function act(path, body, done) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(body) });
  byId("done").textContent = answer.ok ? done(await answer.json()) : await answer.text();
  setTimeout(() => { byId("done").textContent = ""; }, 8000);
}

byId("set-workers").addEventListener("submit", async (event) => {
  event.preventDefault();
  const count = Number(byId("worker-count").value);
  if (await confirmed(`Set the number of workers to ${count}? Batches stay the same.`)) {
    await act("/api/workers", { count }, () => `There will be ${count} workers.`);
  }
});

byId("clear-caches").addEventListener("click", async () => {
  if (await confirmed("Remove all caches on disk? Their images are decoded again when they are needed. " +
    "Streams that are open keep theirs.")) {
    await act("/api/caches/clear", {}, ({ removed_bytes: bytes }) => `${size(bytes)} were removed.`);
  }
});

// -- events --------------------------------------------------------------------------

function gone(text) {
  byId("gone").textContent = text;
  byId("gone").hidden = false;
}

const events = new EventSource("/events");
events.addEventListener("history", (event) => { points = JSON.parse(event.data); });
events.addEventListener("gone", (event) => gone(JSON.parse(event.data).trouble));
events.addEventListener("error", () => gone("The connection to this page’s server is lost; it is tried again."));
events.addEventListener("report", (event) => {
  const { point, report } = JSON.parse(event.data);
  points.push(point);
  points.splice(0, points.length - KEPT);
  showReport(report);
});
