// Run a finished model on a JPEG in JavaScript, with ONNX Runtime and nothing of xdet in Python.
//
// Usage: node run_without_xdet.mjs MODEL.onnx PHOTO.jpg [onnxruntime-node | onnxruntime-web] [--no-vnni]
//
// MODEL.onnx may be one of --any-size: the photograph goes in as it is. Prints a line per box: class, score, corners in pixels of the photograph (its EXIF orientation is not looked at).
// npm install onnxruntime-node @cwasm/jpeg-turbo (or onnxruntime-web). The decoder is libjpeg-turbo as WebAssembly, so its pixels
// are Pillow's. pixels.mjs is the file of xdet's web page that knows the rules of docs/images.md; it needs no other file.
//
// Neither runtime can feed the optional thresholds (Node ignores them, the web build throws), so the file's own hold: choose them
// with xdet convert --score-threshold.
//
// --no-vnni is for x86 CPUs without AVX-512 VNNI or AVX-VNNI, whose fast uint8 kernels saturate: it asks ONNX Runtime for
// the exact ones. It costs time where VNNI exists, and means nothing on ARM. The web build has other kernels and ignores it.

import { readFileSync } from "node:fs";

import { fedShape, networkPixels, placement } from "../xdet/page/static/pixels.mjs";

// The text of a metadata entry: field 14 of the file's outermost message has entries of key (1) and value (2).
function readMetadata(model, key) {
  const entry = fields(model).filter(([number]) => number === 14).map(([, content]) => new Map(fields(content)));
  const found = entry.find((map) => map.get(1)?.toString() === key);
  if (!found) throw new Error(`no document of ${key} inside: convert the model with xdet convert`);
  return found.get(2).toString("utf8");
}

// [number, content] of the fields of a protobuf message that have a length.
function fields(message) {
  const found = [];
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (; message[at] >= 128; scale *= 128) value += (message[at++] - 128) * scale;
    return value + message[at++] * scale;
  };
  while (at < message.length) {
    const tag = varint();
    const size = { 0: varint, 1: () => 8, 2: varint, 5: () => 4 }[tag % 8]();
    if (tag % 8 === 0) continue;
    if (tag % 8 === 2) found.push([Math.floor(tag / 8), message.subarray(at, at + size)]);
    at += size;
  }
  return found;
}

function readJpeg(decode, path) {
  const bytes = readFileSync(path);
  try {
    const { data, width, height } = decode(bytes);
    return { data, width, height };
  } catch (error) {
    throw new Error(`${path}: not a readable JPEG file: ${error.message}`);
  }
}

const [modelPath, photoPath, ...rest] = process.argv.slice(2);
if (!photoPath) {
  console.error("usage: node run_without_xdet.mjs MODEL.onnx PHOTO.jpg [onnxruntime-node | onnxruntime-web] [--no-vnni]");
  process.exit(2);
}
async function run() {
  const ort = await import(rest.find((word) => word.startsWith("onnxruntime-")) ?? "onnxruntime-node");
  const { decode } = await import("@cwasm/jpeg-turbo");

  const options = { logSeverityLevel: 3 }; // the two warnings about optional thresholds are expected
  if (rest.includes("--no-vnni")) options.extra = { session: { x64quantprecision: "1" } };
  const model = readFileSync(modelPath);
  const session = await ort.InferenceSession.create(model, options);
  const { spec } = JSON.parse(readMetadata(model, "xdet"));
  const image = { color: "rgb", ...spec.image };

  const photo = { ...readJpeg(decode, photoPath), channels: 4 };
  const pixels = networkPixels(photo, image);
  const found = await session.run({ image: new ort.Tensor("uint8", pixels, fedShape(photo, image)) });

  const at = placement(image, photo); // where the photograph stands in the network's picture
  const axes = [
    [at.left, at.width, image.width, photo.width],
    [at.top, at.height, image.height, photo.height],
  ];
  const boxes = found.detection_boxes.data;
  for (let i = 0; i < found.num_detections.data[0]; i++) {
    const corners = [0, 1, 2, 3].map((k) => {
      const [start, inner, whole, side] = axes[k % 2];
      return (Math.min(Math.max((boxes[4 * i + k] * whole - start) / inner, 0), 1) * side).toFixed(1);
    });
    const name = spec.class_names[found.detection_classes.data[i]];
    console.log(`${name} ${found.detection_scores.data[i].toFixed(3)}  ${corners.join(" ")}`);
  }
}

try {
  await run();
} catch (error) {
  console.error(error.message);
  process.exitCode = 3;
}
