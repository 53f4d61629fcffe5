// Run a finished model in JavaScript with ONNX Runtime and nothing else.
//
// Usage: node run_without_xdet.mjs MODEL.onnx PHOTO.ppm [onnxruntime-node | onnxruntime-web] [--no-vnni]
//
// PHOTO.ppm is a binary PPM (P6, 8 bit) of exactly the network's size: resize it as the model's metadata says
// (docs/contract.md, "Resizing"); boxes come out in its pixels. In a browser the pixels come from a canvas instead.
// npm install onnxruntime-node (or -web). Neither can feed the optional thresholds (Node ignores them, the web build throws), so
// the file's own hold: choose them with xdet convert --score-threshold.
//
// --no-vnni is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
// the exact ones. It costs time where VNNI exists, and means nothing on ARM. The web build has other kernels and ignores it.

import { readFileSync } from "node:fs";

function readPpm(path) {
  const bytes = readFileSync(path);
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 64).toString("latin1"));
  if (!header) throw new Error(`${path}: not a binary 8-bit PPM without comments`);
  const [width, height] = [Number(header[1]), Number(header[2])];
  const rgb = new Uint8Array(bytes.subarray(header[0].length, header[0].length + width * height * 3));
  if (rgb.length !== width * height * 3) throw new Error(`${path}: the pixels are cut short`);
  return { width, height, rgb };
}

const [modelPath, photoPath, ...rest] = process.argv.slice(2);
if (!photoPath) {
  console.error("usage: node run_without_xdet.mjs MODEL.onnx PHOTO.ppm [onnxruntime-node | onnxruntime-web] [--no-vnni]");
  process.exit(2);
}
const ort = await import(rest.find((word) => word.startsWith("onnxruntime-")) ?? "onnxruntime-node");

const options = { logSeverityLevel: 3 }; // the two warnings about optional thresholds are expected
if (rest.includes("--no-vnni")) options.extra = { session: { x64quantprecision: "1" } };
const session = await ort.InferenceSession.create(readFileSync(modelPath), options);

const { width, height, rgb } = readPpm(photoPath);
const found = await session.run({ image: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });

const boxes = found.detection_boxes.data;
for (let i = 0; i < found.num_detections.data[0]; i++) {
  const corners = [0, 1, 2, 3].map((k) => (boxes[4 * i + k] * (k % 2 ? height : width)).toFixed(1));
  console.log(`${found.detection_classes.data[i]} ${found.detection_scores.data[i].toFixed(3)}  ${corners.join(" ")}`);
}
