// The page: takes pictures, has them looked at by the worker, and shows what was found.

import {
  ask,
  at,
  complain,
  decodePicture,
  drawBox,
  element,
  fetchDescription,
  fetchModel,
  fitted,
  onPicture,
  pixelsOf,
  save,
  say,
  seconds,
  show,
  showTimes,
  unitOf,
} from "./common.js";
import { decode, paint, toCoco } from "./results.js";

const DEFAULT_SCORE = 0.5; // of objects; configs often say 0, which is for evaluation
const CAMERA_SIDE = 640; // pixels
const SEARCHED_FROM = 12; // classes, from which on one wants to search

const canvas = at("canvas");

let description;
let hidden = new Set(); // class indices that are not shown
let thresholds = {}; // of the sliders, by the names of the graph's inputs
let usesBest = false; // the best threshold of each class in the place of one for all
let view = "objects";
let showsBoxes = true;
let source = null; // what is looked at: {bitmap, name}
let current = null; // what was found in it: {pixels, result, full, name, used, times}
let stream = null; // of the camera

async function start() {
  description = await fetchDescription();
  buildControls();
  const began = performance.now();
  const model = await fetchModel("model.onnx");
  say("Preparing the model …");
  await ask("load", { name: "model", model }, [model]);
  say(`Ready: the model was loaded in ${seconds(performance.now() - began)}.`);
}

/** Resolves when the model is loaded. */
export const ready = start();
ready.catch(complain);

// --- pictures -----------------------------------------------------------------------------------------------

/**
 * Looks at a picture and shows it.
 * picture: a Blob, or the address of a picture on this server.
 * Returns what would be saved: the objects that are shown, in COCO's format.
 */
export async function predict(picture, name = "picture") {
  const bitmap = await decodePicture(picture, name);
  source = { bitmap, name };
  await look();
  return coco();
}

/** What was found, as shown, in COCO's format. */
export function coco() {
  return toCoco(current.result, visibleObjects(), description, current.full, current.name);
}

let looking = null; // the run in progress
let again = false; // whether another is to follow, with the newest picture and thresholds

/** Looks at `source`. While it does, further calls ask for one more look after this. */
async function look() {
  await ready;
  if (looking) {
    again = true;
    return looking;
  }
  looking = (async () => {
    do {
      again = false;
      await lookOnce();
    } while (again);
  })();
  try {
    await looking;
  } finally {
    looking = null;
  }
}

async function lookOnce() {
  const { bitmap, name } = source;
  const began = performance.now();
  const full = { width: bitmap.width, height: bitmap.height };
  const limit = stream ? Math.min(CAMERA_SIDE, limitOfSides()) : limitOfSides();
  const { width, height } = fitted(full, limit, description);
  const pixels = pixelsOf(bitmap, { width, height });
  const used = inputs();
  if (!stream) say("Looking at the picture …");
  const prepared = performance.now();
  const copy = pixels.data.slice().buffer;
  const { found, milliseconds } = await ask("run", { pixels: copy, width, height, thresholds: used }, [copy]);
  const result = decode(found, width, height);
  current = { pixels, result, full, name, used };
  current.times = { Picture: prepared - began, Model: milliseconds };
  const answered = performance.now();
  draw();
  current.times.Drawing = performance.now() - answered;
  showTimes(current.times);
  at("save").disabled = !result.objects.length;
}

function limitOfSides() {
  return Number(at("limit").value);
}

/** The thresholds that the graph is given. */
function inputs() {
  if (!usesBest) return { ...thresholds };
  return { ...thresholds, score_threshold: Math.min(...description.class_thresholds.map(bestOr)) };
}

function bestOr(threshold) {
  return threshold ?? DEFAULT_SCORE;
}

function visibleObjects() {
  return current.result.objects.filter(({ label, score }) => {
    const lowest = usesBest ? bestOr(description.class_thresholds[label]) : thresholds.score_threshold;
    return !hidden.has(label) && score >= lowest;
  });
}

// --- drawing ------------------------------------------------------------------------------------------------

function draw() {
  const { result, pixels } = current;
  const { width, height } = result;
  const objects = visibleObjects();
  const painted = new ImageData(pixels.data.slice(), width, height);
  const colors = description.colors.map((color, k) => (hidden.has(k) ? undefined : color));
  if (view === "objects") {
    for (const { mask, label } of objects.toReversed()) {
      if (mask) paint(painted.data, mask, width, height, [undefined, colors[label]]);
    }
  } else if (view === "panoptic") {
    const colorOf = [undefined, ...result.panoptic.segments.map(({ label }) => colors[label])];
    paint(painted.data, result.panoptic.ids, width, height, colorOf);
  } else if (view === "semantic") {
    paint(painted.data, result.semantic, width, height, colors);
  }
  const scale = show(canvas, painted);
  if (showsBoxes) {
    const unit = unitOf(canvas);
    for (const { box, label, score } of objects.toReversed()) {
      const words = `${description.class_names[label]} ${Math.round(100 * score)}%`;
      drawBox(canvas, { box, words, color: description.colors[label] }, scale, unit);
    }
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${current.name} with ${objects.length} objects`);
  showCounts(view === "panoptic" ? result.panoptic.segments : objects);
  if (!stream) say(summary(objects));
}

function summary(objects) {
  const { result, full } = current;
  const count = (n, name) => `${n} ${name}${n === 1 ? "" : "s"}`;
  const segments = result.panoptic?.segments.filter(({ label }) => !hidden.has(label)).length;
  const found = [];
  if (description.tasks.includes("instance")) found.push(count(objects.length, "object"));
  if (segments !== undefined) found.push(count(segments, "segment"));
  const shrunk = result.width < full.width ? `, looked at with ${result.width} × ${result.height}` : "";
  return `${current.name}, ${full.width} × ${full.height} pixels${shrunk}: ${found.join(", ") || "semantic map"}.`;
}

// --- controls -----------------------------------------------------------------------------------------------

function check(type, name, checked, onChange) {
  const label = element("label", undefined, "check");
  const input = element("input");
  Object.assign(input, { type, checked });
  if (type === "radio") input.name = "view";
  input.addEventListener("change", () => onChange(input.checked));
  label.append(input, element("span", name, "name"));
  return label;
}

function buildControls() {
  const { name, tasks, class_names: names, thresholds: defaults, class_thresholds: best } = description;
  if (name) at("title").textContent = document.title = name;
  at("about").textContent = `Finds ${names.length} classes. Pictures stay on this machine.`;
  thresholds = { ...defaults };
  const hasObjects = tasks.includes("instance");
  const views = [
    ["objects", "Objects", hasObjects],
    ["panoptic", "Panoptic map", tasks.includes("panoptic")],
    ["semantic", "Semantic map", tasks.includes("semantic")],
  ].filter(([, , there]) => there);
  view = views[0][0];
  for (const [value, words] of [...views, ["nothing", "Picture alone"]]) {
    at("shown").append(check("radio", words, value === view, () => redraw(() => (view = value))));
  }
  if (hasObjects) {
    at("shown").append(check("checkbox", "Boxes and names", true, (on) => redraw(() => (showsBoxes = on))));
    thresholds.score_threshold = DEFAULT_SCORE;
    const slider = addSlider("score_threshold", "Objects");
    if (best) {
      const toggle = check("checkbox", "The best of each class", false, (on) => {
        usesBest = slider.disabled = on;
        changed();
      });
      at("thresholds").append(toggle);
    }
  }
  if ("panoptic_threshold" in defaults) addSlider("panoptic_threshold", "Panoptic segments");
  at("thresholds").hidden = !Object.keys(thresholds).length;
  at("search").hidden = names.length < SEARCHED_FROM;
  names.forEach((words, k) => {
    const row = check("checkbox", words, true, (on) =>
      redraw(() => (on ? hidden.delete(k) : hidden.add(k))),
    );
    const swatch = element("span", undefined, "swatch");
    swatch.style.background = `rgb(${description.colors[k].join()})`;
    row.querySelector("input").after(swatch);
    row.append(element("span", "", "count"));
    const item = element("li");
    item.append(row);
    at("classes").append(item);
  });
}

function addSlider(input, words) {
  const label = element("label");
  const row = element("span", undefined, "row");
  const shown = element("output", thresholds[input].toFixed(2), "count");
  const slider = element("input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, id: input });
  slider.value = thresholds[input];
  slider.addEventListener("input", () => {
    thresholds[input] = Number(slider.value);
    shown.textContent = thresholds[input].toFixed(2);
    if (current && input === "score_threshold") draw();
  });
  slider.addEventListener("change", changed);
  row.append(element("span", words), shown);
  label.append(row, slider);
  at("thresholds").append(label);
  return slider;
}

/** After a change of thresholds: looks again where the last look does not tell the answer. */
function changed() {
  if (!current) return;
  const { score_threshold: lowest, panoptic_threshold: segments } = inputs();
  const known = !(lowest < current.used.score_threshold) && segments === current.used.panoptic_threshold;
  if (known) draw();
  else look().catch(complain);
}

function redraw(change) {
  change();
  if (current) draw();
}

function setAll(on) {
  hidden = new Set(on ? [] : description.class_names.keys());
  for (const input of at("classes").querySelectorAll("input")) input.checked = on;
  if (current) draw();
}

function showCounts(objects) {
  const counts = new Map();
  for (const { label } of objects) counts.set(label, (counts.get(label) ?? 0) + 1);
  [...at("classes").children].forEach((item, k) => {
    item.querySelector(".count").textContent = counts.get(k) ?? "";
  });
}

// --- events -------------------------------------------------------------------------------------------------

onPicture((file, name) => {
  stopCamera();
  predict(file, name).catch(complain);
});
at("all").addEventListener("click", () => setAll(true));
at("none").addEventListener("click", () => setAll(false));
at("search").addEventListener("input", ({ target }) => {
  const wanted = target.value.trim().toLowerCase();
  [...at("classes").children].forEach((item, k) => {
    item.hidden = !description.class_names[k].toLowerCase().includes(wanted);
  });
});
at("limit").addEventListener("change", () => {
  if (source) look().catch(complain);
});
at("save").addEventListener("click", () => save(coco(), current.name));
window.addEventListener("resize", () => {
  if (current) draw();
});

// --- camera -------------------------------------------------------------------------------------------------

at("camera").addEventListener("click", () => {
  if (stream) stopCamera();
  else startCamera().catch(complain);
});

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the camera only to pages from this machine (localhost) or over https.");
  }
  await ready;
  const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  stream = opened;
  at("camera").textContent = "Stop the camera";
  const video = element("video");
  Object.assign(video, { srcObject: opened, muted: true, playsInline: true });
  try {
    await video.play();
    say("The camera is on.");
    while (stream === opened) {
      source = { bitmap: await createImageBitmap(video), name: "camera" };
      await look();
    }
  } finally {
    if (stream === opened) stopCamera();
  }
}

function stopCamera() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  at("camera").textContent = "Use the camera";
  if (current) say(summary(visibleObjects()));
}
