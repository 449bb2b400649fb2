// The page of a model that answers prompts: looks at a picture once, and then answers clicks, boxes and words.

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
import { decode, encode, paint, toCoco } from "./results.js";

const COLOR = [255, 140, 0]; // of prompts and the masks that answer them
const THUMBNAIL = 96; // pixels
const SHORTEST_BOX = 6; // pixels of the screen; what is drawn shorter is a click
const BETWEEN_WORDS = /[\s,.]+/; // as in Python

const canvas = at("canvas");

let description;
let source = null; // the picture: {bitmap, name}
let seen = null; // how it was looked at: {pixels, full, name}
let answer = null; // {box, masks: [{mask, quality, level}], chosen}, best first
let found = null; // by words: {names, colors, objects}

async function start() {
  description = await fetchDescription();
  const { levels, words } = description.prompts;
  if (description.name) at("title").textContent = document.title = description.name;
  const count = levels.length === 1 ? "a mask" : `${levels.length} masks`;
  const reads = words ? ", and finds what words say" : "";
  at("about").textContent = `Answers a click with ${count}${reads}. Pictures stay on this machine.`;
  if (words) {
    at("reading").hidden = false;
    at("known").textContent = words.join(", ");
    at("text").placeholder = words.slice(0, 1).concat(words.slice(-2, -1)).join(" ");
  }
  const began = performance.now();
  for (const name of ["picture", "prompts", ...(words ? ["words"] : [])]) {
    const model = await fetchModel(`${name}.onnx`);
    say("Preparing the model …");
    await ask("load", { name, model }, [model]);
  }
  say(`Ready: the model was loaded in ${seconds(performance.now() - began)}.`);
}

/** Resolves when the model is loaded. */
export const ready = start();
ready.catch(complain);

// --- questions ----------------------------------------------------------------------------------------------

let queue = Promise.resolve();

/** Runs a task after those before it. */
function inTurn(task) {
  const next = queue.then(task);
  queue = next.catch(() => {});
  return next;
}

/**
 * Looks at a picture, which clicks and words are about from now on.
 * picture: a Blob, or the address of a picture on this server.
 */
export function look(picture, name = "picture") {
  return inTurn(async () => {
    await ready;
    source = { bitmap: await decodePicture(picture, name), name };
    await lookAgain();
  });
}

async function lookAgain() {
  const { bitmap, name } = source;
  const full = { width: bitmap.width, height: bitmap.height };
  const size = fitted(full, Number(at("limit").value), description);
  const pixels = pixelsOf(bitmap, size);
  say("Looking at the picture …");
  const copy = pixels.data.slice().buffer;
  const { milliseconds } = await ask("encode", { pixels: copy, ...size }, [copy]);
  seen = { pixels, full, name };
  answer = found = null;
  showTimes({ Picture: milliseconds });
  draw();
  say(`${name}, ${full.width} × ${full.height} pixels: click at something.`);
}

/**
 * Asks for the masks of a box [x0, y0, x1, y1] in pixels of the picture; a click has both corners in one place.
 * Returns them, best first: {quality, level, segmentation} each, the last in COCO's format.
 */
export function prompt(box) {
  return inTurn(async () => {
    needPicture();
    const { width, height } = seen.pixels;
    const { full } = seen;
    const within = box.map((value, i) => {
      const [side, whole] = i % 2 ? [height, full.height] : [width, full.width];
      return Math.min(Math.max((value * side) / whole, 0), side);
    });
    const { found: outputs, milliseconds } = await ask("prompt", { box: within });
    const { levels } = description.prompts;
    const masks = levels.map((level, k) => ({
      level,
      quality: outputs.quality[k],
      mask: outputs.masks.subarray(k * width * height, (k + 1) * width * height),
    }));
    masks.sort((a, b) => b.quality - a.quality);
    answer = { box: within, masks, chosen: 0 };
    found = null;
    showTimes({ Masks: milliseconds });
    showAnswers();
    draw();
    const best = Math.round(100 * masks[0].quality);
    say(`${masks.length} masks; the best is expected to overlap what is meant by ${best}%.`);
    return masks.map(({ quality, level, mask }) => ({ quality, level, segmentation: segmentation(mask) }));
  });
}

/** Finds what words name, such as "red star, circle". Returns a data set of one picture in COCO's format. */
export function find(text) {
  return inTurn(async () => {
    needPicture();
    const names = text.split(",").map((name) => name.trim()).filter(Boolean);
    const ids = idsOf(names);
    const threshold = Number(at("threshold").value);
    const { found: outputs, milliseconds } = await ask("read", { ids, threshold });
    const { width, height } = seen.pixels;
    found = { names, result: decode(outputs, width, height) };
    answer = null;
    showTimes({ Words: milliseconds });
    showAnswers();
    draw();
    const count = found.result.objects.length;
    say(`${count} ${count === 1 ? "object" : "objects"} for “${names.join(", ")}”.`);
    return coco();
  });
}

function needPicture() {
  if (!seen) throw new Error("Choose a picture first.");
}

/** Ids of the words of names, filled up with 0. */
function idsOf(names) {
  const { words } = description.prompts;
  if (!names.length) throw new Error("Type what to find, such as “" + at("text").placeholder + "”.");
  if (new Set(names.map((name) => name.toLowerCase())).size < names.length) {
    throw new Error("A name is there more than once.");
  }
  const rows = names.map((name) => name.toLowerCase().split(BETWEEN_WORDS).filter(Boolean));
  const unknown = rows.flat().filter((word) => !words.includes(word));
  if (unknown.length || rows.some((row) => !row.length)) {
    throw new Error(`This model does not know “${unknown.join(", ") || names.join(", ")}”.`);
  }
  const longest = Math.max(...rows.map((row) => row.length));
  return rows.map((row) => Array.from({ length: longest }, (_, i) => words.indexOf(row[i]) + 1));
}

function segmentation(mask) {
  const { full, pixels } = seen;
  return { size: [full.height, full.width], counts: encode(mask, pixels, full).counts };
}

/** What is shown, in COCO's format: what words found, or the chosen mask. */
export function coco() {
  const { width, height } = seen.pixels;
  if (found) return toCoco(found.result, found.result.objects, classesOf(found.names), seen.full, seen.name);
  const { mask, quality } = answer.masks[answer.chosen];
  const objects = [{ box: boxOf(mask, width, height), score: quality, label: 0, mask }];
  return toCoco({ width, height }, objects, classesOf(["object"]), seen.full, seen.name);
}

function classesOf(names) {
  return { class_names: names, category_ids: names.map((_, k) => k + 1) };
}

/** The box from the first to the last pixel of a mask. */
function boxOf(mask, width, height) {
  let [x0, y0, x1, y1] = [width, height, 0, 0];
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!mask[i]) continue;
      [x0, y0, x1, y1] = [Math.min(x0, x), Math.min(y0, y), Math.max(x1, x + 1), Math.max(y1, y + 1)];
    }
  }
  return x1 ? [x0, y0, x1, y1] : [0, 0, 0, 0];
}

// --- drawing ------------------------------------------------------------------------------------------------

/** A colour for the class of a number, far from those of its neighbours. */
function colorOf(number) {
  const hue = (number * 137.5) % 360;
  const part = (n) => {
    const k = (n + hue / 60) % 6;
    return Math.round(230 - 170 * Math.max(0, Math.min(k, 4 - k, 1)));
  };
  return [part(5), part(3), part(1)];
}

/** dragged: a box that is being drawn, in pixels of the picture as it is looked at. */
function draw(dragged) {
  const { pixels } = seen;
  const { width, height } = pixels;
  const painted = new ImageData(pixels.data.slice(), width, height);
  const objects = found ? found.result.objects : [];
  for (const { mask, label } of objects.toReversed()) {
    paint(painted.data, mask, width, height, [undefined, colorOf(label)]);
  }
  if (answer) paint(painted.data, answer.masks[answer.chosen].mask, width, height, [undefined, COLOR]);
  const scale = show(canvas, painted);
  const unit = unitOf(canvas);
  for (const { box, label, score } of objects.toReversed()) {
    const words = `${found.names[label]} ${Math.round(100 * score)}%`;
    drawBox(canvas, { box, words, color: colorOf(label) }, scale, unit);
  }
  const marked = dragged ?? answer?.box;
  if (marked) drawPrompt(marked, scale, unit);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", seen.name);
  at("save").disabled = !(answer || objects.length);
}

function drawPrompt([x0, y0, x1, y1], scale, unit) {
  const pen = canvas.getContext("2d");
  pen.strokeStyle = "black";
  pen.fillStyle = `rgb(${COLOR.join()})`;
  pen.lineWidth = 2 * unit;
  pen.beginPath();
  if (x0 === x1 && y0 === y1) {
    pen.arc(x0 * scale, y0 * scale, 6 * unit, 0, 2 * Math.PI);
    pen.fill();
  } else {
    pen.rect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
  }
  pen.stroke();
  if (x0 === x1 && y0 === y1) return;
  pen.strokeStyle = pen.fillStyle;
  pen.setLineDash([6 * unit, 4 * unit]);
  pen.stroke();
  pen.setLineDash([]);
}

function showAnswers() {
  const buttons = (answer?.masks ?? []).map(({ mask, quality, level }, k) => {
    const button = element("button", undefined, "answer");
    button.type = "button";
    button.setAttribute("aria-pressed", k === answer.chosen);
    const words = `level ${level}, ${Math.round(100 * quality)}%`;
    button.append(thumbnail(mask), element("span", words));
    button.addEventListener("click", () => choose(k));
    return button;
  });
  at("answers").replaceChildren(...buttons);
  at("asked").hidden = buttons.length > 0;
}

/** Shows another of the masks. */
export function choose(number) {
  answer.chosen = number;
  [...at("answers").children].forEach((button, k) => button.setAttribute("aria-pressed", k === number));
  draw();
}

/** A small picture of a mask. */
function thumbnail(mask) {
  const { width, height } = seen.pixels;
  const painted = new ImageData(seen.pixels.data.slice(), width, height);
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) for (let c = 0; c < 3; c++) painted.data[4 * i + c] *= 0.25;
  }
  const sheet = new OffscreenCanvas(width, height);
  sheet.getContext("2d").putImageData(painted, 0, 0);
  const small = element("canvas");
  const scale = THUMBNAIL / Math.max(width, height);
  small.width = Math.max(1, Math.round(width * scale));
  small.height = Math.max(1, Math.round(height * scale));
  small.getContext("2d").drawImage(sheet, 0, 0, small.width, small.height);
  return small;
}

// --- events -------------------------------------------------------------------------------------------------

onPicture((file, name) => look(file, name).catch(complain));

let pressed = null; // where the pointer went down, in pixels of the picture as it is looked at

/** Where an event was, in pixels of the picture as it is looked at. */
function placeOf(event) {
  const { width, height } = seen.pixels;
  const frame = canvas.getBoundingClientRect();
  // The canvas may be narrower than its frame, see style.css.
  const scale = Math.min(frame.width / width, frame.height / height);
  const x = (event.clientX - frame.left - (frame.width - width * scale) / 2) / scale;
  const y = (event.clientY - frame.top - (frame.height - height * scale) / 2) / scale;
  return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
}

function boxTo(event) {
  const [x, y] = placeOf(event);
  return [Math.min(pressed.x, x), Math.min(pressed.y, y), Math.max(pressed.x, x), Math.max(pressed.y, y)];
}

function isClick(event) {
  return Math.max(...[event.clientX - pressed.left, event.clientY - pressed.top].map(Math.abs)) < SHORTEST_BOX;
}

canvas.addEventListener("pointerdown", (event) => {
  if (!seen || event.button !== 0) return;
  const [x, y] = placeOf(event);
  pressed = { x, y, left: event.clientX, top: event.clientY };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (pressed && !isClick(event)) draw(boxTo(event));
});
canvas.addEventListener("pointercancel", () => {
  pressed = null;
});
canvas.addEventListener("pointerup", (event) => {
  if (!pressed) return;
  const [x0, y0, x1, y1] = boxTo(event);
  const corners = isClick(event) || x0 === x1 || y0 === y1 ? [pressed.x, pressed.y, pressed.x, pressed.y] : [x0, y0, x1, y1];
  pressed = null;
  const { full, pixels } = seen;
  const scales = [full.width / pixels.width, full.height / pixels.height];
  prompt(corners.map((value, i) => value * scales[i % 2])).catch(complain);
});
at("words").addEventListener("submit", (event) => {
  event.preventDefault();
  find(at("text").value).catch(complain);
});
at("threshold").addEventListener("input", ({ target }) => {
  at("shown").textContent = Number(target.value).toFixed(2);
});
at("threshold").addEventListener("change", () => {
  if (found) find(found.names.join(", ")).catch(complain);
});
at("limit").addEventListener("change", () => {
  if (source) inTurn(lookAgain).catch(complain);
});
at("save").addEventListener("click", () => save(coco(), seen.name));
window.addEventListener("resize", () => {
  if (seen) draw();
});
