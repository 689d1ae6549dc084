"use strict";
// All that the pages need a script for. They work without it, but for sliders, brushing and keys.

const page = document.body.dataset.page;
const $ = (selector) => document.querySelector(selector);
const all = (selector) => [...document.querySelectorAll(selector)];

document.documentElement.classList.add("script");
all(".needs-script").forEach((each) => { each.hidden = false; });

// Filters: a short URL, without what is empty.
const filters = $("#filters");
function submit() {
  filters.querySelectorAll("input, select").forEach((each) => { each.disabled = each.value === ""; });
  filters.submit();
}
if (filters) {
  filters.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  filters.addEventListener("change", (event) => { if (event.target.matches("select, input[type=checkbox]")) submit(); });
  addEventListener("pageshow", () => filters.querySelectorAll(":disabled").forEach((each) => { each.disabled = false; }));
}

// Histograms: drag to choose a range, click to clear it.
all(".histogram").forEach((box) => {
  const svg = box.querySelector("svg"), brush = box.querySelector(".brush"), [least, greatest] = box.querySelectorAll("input");
  const low = Number(box.dataset.low), high = Number(box.dataset.high), width = 240;
  const place = (value) => (high > low ? ((value - low) / (high - low)) * width : 0);
  const draw = (from, to) => { brush.setAttribute("x", Math.min(from, to)); brush.setAttribute("width", Math.abs(to - from)); };
  if (least.value || greatest.value) draw(place(Number(least.value || low)), place(Number(greatest.value || high)));
  let start = null;
  const at = (event) => {
    const edge = svg.getBoundingClientRect();
    return Math.min(width, Math.max(0, ((event.clientX - edge.left) / edge.width) * width));
  };
  svg.addEventListener("pointerdown", (event) => { start = at(event); svg.setPointerCapture(event.pointerId); event.preventDefault(); });
  svg.addEventListener("pointermove", (event) => { if (start !== null) draw(start, at(event)); });
  svg.addEventListener("pointerup", (event) => {
    const end = at(event), [from, to] = [Math.min(start, end), Math.max(start, end)];
    start = null;
    const value = (x) => String(Number((low + (x / width) * (high - low)).toPrecision(5)));
    [least.value, greatest.value] = to - from < 3 ? ["", ""] : [value(from), value(to)];
    submit();
  });
});

// Opacity and threshold: the heat maps are drawn on canvases over the photograph.
const opacity = $("#opacity"), threshold = $("#threshold"), truth = $("#truth");
async function pixels(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  return { canvas, context, data: context.getImageData(0, 0, canvas.width, canvas.height) };
}
const canvases = new Map();
async function cut(heat, limit) {
  if (!canvases.has(heat)) {
    canvases.set(heat, Promise.all([pixels(heat.src), pixels(heat.dataset.map)]).then(([colour, map]) => {
      colour.canvas.setAttribute("role", "img");
      colour.canvas.setAttribute("aria-label", heat.alt);
      heat.replaceWith(colour.canvas);
      return { colour, map };
    }));
  }
  const { colour, map } = await canvases.get(heat);
  for (let index = 0; index < map.data.data.length; index += 4) colour.data.data[index + 3] = map.data.data[index] / 255 < limit ? 0 : 255;
  colour.context.putImageData(colour.data, 0, 0);
}
if (opacity) {
  const heats = all(".heat");
  const blend = () => {
    all(".layers > .heat, .layers > canvas").forEach((each) => { each.style.opacity = opacity.value / 100; });
    opacity.parentElement.querySelector("output").value = `${opacity.value}%`;
  };
  opacity.addEventListener("input", blend);
  threshold.addEventListener("input", async () => {
    threshold.parentElement.querySelector("output").value = (threshold.value / 100).toFixed(2);
    await Promise.all(heats.map((heat) => cut(heat, threshold.value / 100)));
    blend();
  });
  truth?.addEventListener("change", () => all(".outline:not(.borders)").forEach((each) => { each.hidden = !truth.checked; }));
  $("#borders")?.addEventListener("change", (event) => all(".borders").forEach((each) => { each.hidden = !event.target.checked; }));
}

// Curves: the cursor, and the images at its point.
const curves = $("#curves");
if (curves) {
  const step = $("#step"), values = { deletion: JSON.parse(curves.dataset.deletion), insertion: JSON.parse(curves.dataset.insertion) };
  let waiting = 0;
  const show = () => {
    const number = Number(step.value), share = number / Number(step.max);
    $(".cursor").setAttribute("x1", 420 * share);
    $(".cursor").setAttribute("x2", 420 * share);
    $("#step-text").value = `${Math.round(100 * share)}%`;
    for (const name of ["deletion", "insertion"]) {
      const value = values[name][number];
      $(`#value-${name}`).value = value === null ? "–" : value.toFixed(3);
      const picture = $(`#picture-${name}`);
      if (picture) { const url = new URL(picture.src); url.searchParams.set("number", number); picture.dataset.next = url; }
    }
    clearTimeout(waiting);
    waiting = setTimeout(() => all("[data-next]").forEach((each) => { each.src = each.dataset.next; }), 60);
  };
  step.addEventListener("input", show);
  $("#curve-method").addEventListener("change", (event) => event.target.form.submit());
}

// Similar maps are read when the page is there.
const similar = $("#similar a");
if (similar) similar.addEventListener("click", async (event) => {
  event.preventDefault();
  const answer = await fetch(similar.href);
  const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#found");
  if (found) $("#similar").replaceChildren(document.adoptNode(found)); else location.href = similar.href;
});

// The page follows a run at work.
const progress = $(".progress");
async function follow() {
  try {
    const state = await (await fetch("/state.json")).json();
    if (page === "grid" && progress.dataset.loaded === "0" && state.loaded > 0) location.reload();
    progress.textContent = state.text + (state.loaded > Number(progress.dataset.loaded) ? " (reload to see more)" : "");
    if (state.loaded < state.shards) setTimeout(follow, 3000);
  } catch { progress.textContent = "the viewer has ended"; }
}
if (Number(progress.dataset.loaded) < Number(progress.dataset.shards)) setTimeout(follow, 1500);

// Keys.
const help = $("#help");
$("#help-open").addEventListener("click", () => help.showModal());
function step_to(offset) {
  const links = all(".tiles .open"), now = links.indexOf(document.activeElement);
  const next = links[Math.min(links.length - 1, Math.max(0, now < 0 ? 0 : now + offset))];
  next?.focus();
}
const follow_link = (selector) => { const link = $(selector); if (link) location.href = link.href; };
addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  if (typing) { if (event.key === "Escape") event.target.blur(); return; }
  const forward = event.key === "j" || event.key === "ArrowRight", backward = event.key === "k" || event.key === "ArrowLeft";
  if (event.key === "?") help.showModal();
  else if (event.key === "t") $("#theme").click();
  else if (event.key === "/" && $("#where")) $("#where").focus();
  else if (page === "grid" && (forward || backward)) step_to(forward ? 1 : -1);
  else if (page === "grid" && event.key === "n") follow_link(".pages [rel=next]");
  else if (page === "grid" && event.key === "p") follow_link(".pages [rel=prev]");
  else if (page === "detail" && forward) follow_link(".walk [rel=next]");
  else if (page === "detail" && backward) follow_link(".walk [rel=prev]");
  else if (event.key === "u" || event.key === "Escape") follow_link("#back");
  else return;
  event.preventDefault();
});
if (page === "grid" && location.hash.startsWith("#row-")) document.getElementById(location.hash.slice(1))?.focus();
