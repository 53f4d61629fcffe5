// ONNX Runtime Web in Node, driven over stdin and stdout by xdet/runtimes/ort_web.py.
//
// Usage: node ort_web.mjs PATH-OF-PACKAGE/onnxruntime-web
//
// A frame, both ways: uint32 length of a header, uint32 length of a body (little endian), the header as JSON, the body.
//   {"op": "open"} + model               -> {"batch": 1 | null, "outputs": [...]}
//   {"op": "run", "dims": [...], "names": [...]} + uint8 pixels
//                                         -> {"tensors": [{"dtype", "dims", "size"}]} + their bytes, one behind the other
// A failure answers {"error": "..."}. The process ends with its input.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

for (const name of ["log", "info", "debug", "warn"]) console[name] = console.error; // stdout carries frames only

const require = createRequire(process.argv[2] + "/package.json");
const ort = await import(pathToFileURL(require.resolve("onnxruntime-web")).href);
const api = ort.InferenceSession ? ort : ort.default;
api.env.wasm.numThreads = 1;
api.env.logLevel = "error";

let session = null;

async function open(body) {
  await session?.release();
  session = await api.InferenceSession.create(body, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const shape = session.inputMetadata?.find((input) => input.name === "image")?.shape;
  return [{ batch: typeof shape?.[0] === "number" ? shape[0] : null, outputs: session.outputNames }, []];
}

async function run({ dims, names }, body) {
  const found = await session.run({ image: new api.Tensor("uint8", body, dims) }, names);
  const parts = names.map((name) => {
    const { data } = found[name];
    return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  });
  const tensors = names.map((name, i) => ({ dtype: found[name].type, dims: found[name].dims, size: parts[i].length }));
  return [{ tensors }, parts];
}

function send(header, parts) {
  const text = Buffer.from(JSON.stringify(header), "utf8");
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(text.length, 0);
  lengths.writeUInt32LE(parts.reduce((sum, part) => sum + part.length, 0), 4);
  process.stdout.write(Buffer.concat([lengths, text, ...parts]));
}

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
  const lengths = await take(8);
  if (lengths === null) break;
  const header = JSON.parse((await take(lengths.readUInt32LE(0))).toString("utf8"));
  const body = new Uint8Array(await take(lengths.readUInt32LE(4))); // a copy: aligned, and no one else's
  try {
    send(...(header.op === "open" ? await open(body) : await run(header, body)));
  } catch (error) {
    send({ error: String(error?.message ?? error) }, []);
  }
}
