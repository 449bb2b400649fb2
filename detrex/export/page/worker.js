// Runs the model beside the page, so that the page answers while it computes.

import * as ort from "./onnxruntime-web/ort.wasm.bundle.min.mjs";

ort.env.logLevel = "error"; // its warnings are of what it does not optimise
// More threads need memory that they share, which browsers give only to pages with special headers.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = {
  wasm: new URL("./onnxruntime-web/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};

const sessions = {};
let memory; // what models that answer prompts have found in the picture

async function load({ name, model }) {
  const options = { executionProviders: ["wasm"], logSeverityLevel: 3 }; // errors, as above
  sessions[name] = await ort.InferenceSession.create(new Uint8Array(model), options);
  return {};
}

/** The input of pixels in RGBA, row by row. */
function imagesOf(pixels, width, height) {
  const rgba = new Uint8ClampedArray(pixels);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    rgb[j++] = rgba[i];
    rgb[j++] = rgba[i + 1];
    rgb[j++] = rgba[i + 2];
  }
  return new ort.Tensor("uint8", rgb, [1, height, width, 3]);
}

async function timed(name, inputs) {
  const began = performance.now();
  const outputs = await sessions[name].run(inputs);
  return { outputs, milliseconds: performance.now() - began };
}

function arraysOf(outputs) {
  const found = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    // 64 bits are more than class indices need.
    found[name] = tensor.type === "int64" ? Int32Array.from(tensor.data, Number) : tensor.data;
  }
  return found;
}

/** pixels: RGBA of a picture, row by row. thresholds: the inputs besides the picture, by name. */
async function run({ pixels, width, height, thresholds }) {
  const inputs = { images: imagesOf(pixels, width, height) };
  for (const [name, value] of Object.entries(thresholds)) {
    inputs[name] = new ort.Tensor("float32", Float32Array.of(value), []);
  }
  const { outputs, milliseconds } = await timed("model", inputs);
  return { found: arraysOf(outputs), milliseconds };
}

/** Looks at a picture, which later tasks are about. */
async function encode({ pixels, width, height }) {
  const { outputs, milliseconds } = await timed("picture", { images: imagesOf(pixels, width, height) });
  memory = outputs;
  return { milliseconds };
}

/** Masks for a box [x0, y0, x1, y1] in pixels; a click is one whose corners are the same. */
async function prompt({ box }) {
  const prompts = new ort.Tensor("float32", Float32Array.from(box), [1, 4]);
  const { outputs, milliseconds } = await timed("prompts", { prompts, ...memory });
  return { found: arraysOf(outputs), milliseconds };
}

/** Objects that words name. ids: of the words of each class, all of one length. */
async function read({ ids, threshold }) {
  const words = new ort.Tensor("int64", BigInt64Array.from(ids.flat(), BigInt), [ids.length, ids[0].length]);
  const score_threshold = new ort.Tensor("float32", Float32Array.of(threshold), []);
  const { outputs, milliseconds } = await timed("words", { words, score_threshold, ...memory });
  return { found: arraysOf(outputs), milliseconds };
}

const tasks = { load, run, encode, prompt, read };

self.onmessage = async ({ data: { id, task, values } }) => {
  try {
    const result = await tasks[task](values);
    const buffers = Object.values(result.found ?? {}).map((array) => array.buffer);
    self.postMessage({ id, result }, [...new Set(buffers)]);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
