// Runs the model beside the page, so that the page answers while it computes.

import * as ort from "./onnxruntime-web/ort.wasm.bundle.min.mjs";

ort.env.logLevel = "error"; // its warnings are of what it does not optimise
// More threads need memory that they share, which browsers give only to pages with special headers.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = {
  wasm: new URL("./onnxruntime-web/ort-wasm-simd-threaded.wasm", import.meta.url).href,
};

let session;

async function load({ model }) {
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  return {};
}

/** pixels: RGBA of a picture, row by row. thresholds: the inputs besides the picture, by name. */
async function run({ pixels, width, height, thresholds }) {
  const rgba = new Uint8ClampedArray(pixels);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    rgb[j++] = rgba[i];
    rgb[j++] = rgba[i + 1];
    rgb[j++] = rgba[i + 2];
  }
  const inputs = { images: new ort.Tensor("uint8", rgb, [1, height, width, 3]) };
  for (const [name, value] of Object.entries(thresholds)) {
    inputs[name] = new ort.Tensor("float32", Float32Array.of(value), []);
  }
  const began = performance.now();
  const outputs = await session.run(inputs);
  const milliseconds = performance.now() - began;
  const found = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    // 64 bits are more than class indices need.
    found[name] = tensor.type === "int64" ? Int32Array.from(tensor.data, Number) : tensor.data;
  }
  return { found, milliseconds };
}

const tasks = { load, run };

self.onmessage = async ({ data: { id, task, values } }) => {
  try {
    const result = await tasks[task](values);
    const buffers = Object.values(result.found ?? {}).map((array) => array.buffer);
    self.postMessage({ id, result }, [...new Set(buffers)]);
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error) });
  }
};
