// ONNX Runtime in Node, driven over stdin and stdout by xdet/runtimes/javascript.py with the frames of ort_core.mjs.
//
// Usage: node ort_node.mjs PATH-OF-PACKAGE/onnxruntime-web PROVIDER
//
// The process ends with its input.

import { createRequire } from "node:module";
import { basename } from "node:path";
import { pathToFileURL } from "node:url";

import { lengths, serve } from "./ort_core.mjs";

for (const name of ["log", "info", "debug", "warn"]) console[name] = console.error; // stdout carries frames only

const [folder, provider] = process.argv.slice(2);
const require = createRequire(folder + "/package.json");
const ort = await import(pathToFileURL(require.resolve(basename(folder))).href);
const answer = serve(ort.InferenceSession ? ort : ort.default, provider);

const chunks = process.stdin[Symbol.asyncIterator]();
let waiting = [];
let held = 0;

async function take(count) {
  while (held < count) {
    const { value, done } = await chunks.next();
    if (done) return null;
    waiting.push(value);
    held += value.length;
  }
  const all = waiting.length === 1 ? waiting[0] : Buffer.concat(waiting);
  waiting = all.length > count ? [all.subarray(count)] : [];
  held -= count;
  return all.subarray(0, count);
}

for (;;) {
  const sizes = await take(8);
  if (sizes === null) break;
  const [head, content] = lengths(new DataView(sizes.buffer, sizes.byteOffset, 8));
  const header = JSON.parse((await take(head)).toString("utf8"));
  const body = new Uint8Array(await take(content)); // a copy: aligned, and no one else's
  process.stdout.write(Buffer.concat(await answer(header, body)));
}
