// Run a finished model in JavaScript with ONNX Runtime and nothing else.
//
// Usage: node run_without_xdet.mjs MODEL.onnx PHOTO.ppm [onnxruntime-node | onnxruntime-web] [--no-vnni]
//
// PHOTO.ppm is a binary PPM (P6, 8 bit); boxes come out in its pixels. Where the model's metadata say "letterbox", it has any
// size; else exactly the network's: resize it as they say (docs/contract.md, "Pictures"). In a browser the pixels come from a
// canvas instead.
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

// What the model's document says of its picture: the JSON text stands in the file as it is.
function readRule(bytes) {
  const image = /"image":(\{[^{}]*\{[^{}]*\}[^{}]*\}|\{[^{}]*\})/.exec(Buffer.from(bytes).toString("latin1"));
  if (!image) throw new Error(`${modelPath}: no document of xdet inside`);
  return { color: "rgb", ...JSON.parse(image[1]) };
}

// Where a photograph stands in the network's picture. Halves go to the even number, as Python rounds.
function place(photo, rule) {
  const whole = { left: 0, top: 0, width: rule.width, height: rule.height };
  if (rule.resize !== "letterbox") {
    if (photo.width !== rule.width || photo.height !== rule.height)
      throw new Error(`the picture is ${photo.width} x ${photo.height}, the model takes ${rule.width} x ${rule.height}`);
    return whole;
  }
  const even = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
  const scale = Math.min(rule.height / photo.height, rule.width / photo.width);
  const [width, height] = [photo.width, photo.height].map((side) => Math.max(1, even(side * scale)));
  const [left, top] = [rule.width - width, rule.height - height].map((bars) => even(bars / 2 - 0.1));
  return { left, top, width, height };
}

// The two source rows (or columns) of a target row, and the weight of the second, in float32.
function neighbours(index, source, target) {
  const centre = Math.fround(Math.fround(Math.fround(index + 0.5) * Math.fround(source / target)) - 0.5);
  const clamp = (x) => Math.min(Math.max(x, 0), source - 1);
  return [clamp(Math.floor(centre)), clamp(Math.ceil(centre)), Math.fround(centre - Math.floor(centre))];
}

function networkPixels(photo, rule, at) {
  const rgb = new Uint8Array(rule.width * rule.height * 3).fill(114);
  const mix = (a, b, weight) => Math.fround(a + Math.fround(Math.fround(b - a) * weight));
  const toEven = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));
  for (let y = 0; y < at.height; y++) {
    const [up, down, weightY] = neighbours(y, photo.height, at.height);
    for (let x = 0; x < at.width; x++) {
      const [left, right, weightX] = neighbours(x, photo.width, at.width);
      for (let c = 0; c < 3; c++) {
        const pixel = (row, column) => photo.rgb[(row * photo.width + column) * 3 + c];
        const above = mix(pixel(up, left), pixel(up, right), weightX);
        const below = mix(pixel(down, left), pixel(down, right), weightX);
        rgb[((at.top + y) * rule.width + at.left + x) * 3 + c] = toEven(mix(above, below, weightY));
      }
    }
  }
  if (rule.color === "rgb") return rgb;
  const pixels = new Uint8Array(rule.width * rule.height * (rule.color === "grey" ? 1 : 3));
  for (let i = 0; i < rule.width * rule.height; i++) {
    const [r, g, b] = rgb.subarray(3 * i, 3 * i + 3);
    if (rule.color === "grey") pixels[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else pixels.set([b, g, r], 3 * i);
  }
  return pixels;
}

const photo = readPpm(photoPath);
const rule = readRule(readFileSync(modelPath));
const at = place(photo, rule);
const shape = [1, rule.height, rule.width, rule.color === "grey" ? 1 : 3];
const found = await session.run({ image: new ort.Tensor("uint8", networkPixels(photo, rule, at), shape) });

const boxes = found.detection_boxes.data;
for (let i = 0; i < found.num_detections.data[0]; i++) {
  const corners = [0, 1, 2, 3].map((k) => {
    const [start, inner, whole, side] = k % 2 ? [at.top, at.height, rule.height, photo.height] : [at.left, at.width, rule.width, photo.width];
    const inside = (boxes[4 * i + k] * whole - start) / inner;
    return (Math.min(Math.max(inside, 0), 1) * side).toFixed(1);
  });
  console.log(`${found.detection_classes.data[i]} ${found.detection_scores.data[i].toFixed(3)}  ${corners.join(" ")}`);
}
