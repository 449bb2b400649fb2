// What all pages share: the worker that computes, pictures, and words for the user.

export const at = (id) => document.getElementById(id);

// --- the worker ---------------------------------------------------------------------------------------------

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let calls = 0;
let broken = null; // why the worker cannot answer

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};
worker.onerror = (event) => {
  broken = new Error(event.message || "onnxruntime-web could not be loaded.");
  for (const { reject } of waiting.values()) reject(broken);
  waiting.clear();
};

/** The worker's answer to a task, see worker.js. */
export function ask(task, values, transferred = []) {
  if (broken) return Promise.reject(broken);
  return new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject });
    worker.postMessage({ id: calls, task, values }, transferred);
  });
}

/** The bytes of a file beside the page, with its progress shown. */
export async function fetchModel(file) {
  const response = await fetchFile(file);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let received = 0;
  at("progress").hidden = false;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    received += value.length;
    if (total) at("progress").value = received / total;
    say(`Loading the model: ${(received / 1e6).toFixed(1)} MB`);
  }
  at("progress").hidden = true;
  return new Blob(parts).arrayBuffer();
}

async function fetchFile(file) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  return response;
}

/** What the model says about itself. */
export async function fetchDescription() {
  return (await fetchFile("model.json")).json();
}

// --- pictures -----------------------------------------------------------------------------------------------

/** picture: a Blob, or the address of a picture on this server. */
export async function decodePicture(picture, name) {
  const blob = picture instanceof Blob ? picture : await (await fetch(picture)).blob();
  try {
    // As in Python: turned as the camera was held, and with the colours that are in the file.
    return await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is no picture that this browser can read.`);
  }
}

/** The size, of at most `limit` pixels a side, at which a model looks at a picture. */
export function fitted({ width, height }, limit, { sides }) {
  const [[low, high], [narrow, wide]] = sides;
  const scale = Math.min(1, limit / Math.max(width, height), high / height, wide / width);
  const size = { width: Math.round(width * scale), height: Math.round(height * scale) };
  if (size.width < narrow || size.height < low) {
    throw new Error(
      `The picture is ${width} × ${height} pixels; the model takes them from ${narrow} × ${low} pixels on.`,
    );
  }
  return size;
}

/** The ImageData of a picture at a size. */
export function pixelsOf(bitmap, { width, height }) {
  const sheet = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  sheet.imageSmoothingQuality = "high";
  sheet.fillStyle = "white"; // behind what is transparent
  sheet.fillRect(0, 0, width, height);
  sheet.drawImage(bitmap, 0, 0, width, height);
  return sheet.getImageData(0, 0, width, height);
}

/** Shows pixels on a canvas; small pictures are enlarged, so that lines and names on them can be read. Returns by how much. */
export function show(canvas, pixels) {
  const { width, height } = pixels;
  const scale = Math.max(1, Math.ceil(800 / Math.max(width, height)));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const sheet = new OffscreenCanvas(width, height);
  sheet.getContext("2d").putImageData(pixels, 0, 0);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(sheet, 0, 0, canvas.width, canvas.height);
  canvas.hidden = false;
  at("hint").hidden = true;
  at("drop").classList.add("full");
  return scale;
}

/** Pixels of the canvas in one of the screen. */
export function unitOf(canvas) {
  return 1 / Math.min(canvas.clientWidth / canvas.width, canvas.clientHeight / canvas.height);
}

/**
 * Draws a box with words on it.
 * scale: pixels of the canvas in one of the picture. unit: those in one of the screen.
 */
export function drawBox(canvas, { box, words, color: [r, g, b] }, scale, unit) {
  const pen = canvas.getContext("2d");
  const [x0, y0, x1, y1] = box.map((value) => value * scale);
  const line = 2 * unit;
  pen.lineWidth = 2 * line;
  pen.strokeStyle = "rgba(0, 0, 0, 0.6)";
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  pen.lineWidth = line;
  pen.strokeStyle = `rgb(${r}, ${g}, ${b})`;
  pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
  const size = 13 * unit;
  pen.font = `${size}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  const wide = pen.measureText(words).width + size / 2;
  const left = Math.min(Math.max(x0 - line, 0), Math.max(canvas.width - wide, 0));
  const top = y0 >= 1.25 * size ? y0 - 1.25 * size : Math.max(y0, 0);
  pen.fillStyle = pen.strokeStyle;
  pen.fillRect(left, top, wide, 1.25 * size);
  pen.fillStyle = 0.3 * r + 0.59 * g + 0.11 * b > 128 ? "black" : "white";
  pen.fillText(words, left + size / 4, top + size / 6);
}

/** Offers a value as a file in JSON. */
export function save(value, pictureName) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(value)], { type: "application/json" }));
  link.download = `${pictureName.replace(/\.[^.]*$/, "") || "picture"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Gives pictures that are chosen, dropped or pasted to `take`. */
export function onPicture(take) {
  const given = (file) => {
    if (file) take(file, file.name || "picture");
  };
  at("file").addEventListener("change", ({ target }) => {
    given(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) at("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").classList.remove("over");
    given(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => given(event.clipboardData.files[0]));
}

// --- words --------------------------------------------------------------------------------------------------

/** Shows durations by name, in milliseconds. */
export function showTimes(times) {
  const entries = Object.entries(times).map(([name, milliseconds]) => {
    const row = document.createElement("div");
    row.append(element("dt", name), element("dd", seconds(milliseconds)));
    return row;
  });
  at("times").replaceChildren(...entries);
  at("times").hidden = false;
}

/** A duration in words. */
export function seconds(milliseconds) {
  return milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/** A new element. */
export function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Tells the user something. */
export function say(words) {
  at("status").textContent = words;
  at("status").classList.remove("error");
}

/** Tells the user what went wrong. */
export function complain(error) {
  at("progress").hidden = true;
  at("status").textContent = error.message;
  at("status").classList.add("error");
}
