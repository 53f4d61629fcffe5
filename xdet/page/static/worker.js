// xdet page: the detector, in a worker so that the page never stands still: a picture in, boxes out.
//
// The page posts {op: "open", id, model} once, then {op: "detect", id, picture} with a Blob or an ImageBitmap. Answers:
// {id}, {id, bitmap, boxes, times}, or {id, problem} with words for people.

import { decode, fedShape, networkPixels, placement } from "./pixels.mjs";

let ort = null;
let session = null;
let model = null; // what page.json says of it

self.onmessage = async ({ data }) => {
  try {
    if (data.op === "open") {
      await open(data.model);
      self.postMessage({ id: data.id });
    } else {
      const found = await detect(data.picture);
      self.postMessage({ id: data.id, ...found }, [found.bitmap]);
    }
  } catch (error) {
    self.postMessage({ id: data.id, problem: String(error?.message ?? error) });
  }
};

async function open(description) {
  model = description;
  const folder = new URL(`./${model.runtime}/`, import.meta.url).href;
  const [answer, runtime] = await Promise.all([
    fetch(new URL("./model.onnx", import.meta.url)).catch(() => null),
    import(`${folder}ort.wasm.min.mjs`).catch(() => null),
  ]);
  if (!answer?.ok) throw new Error("The model cannot be loaded: model.onnx is missing beside this page.");
  if (!runtime) throw new Error(`ONNX Runtime Web cannot be loaded: ${model.runtime}/ is missing beside this page.`);
  const bytes = new Uint8Array(await answer.arrayBuffer());
  ort = runtime;
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = 1;
  try {
    const options = { executionProviders: ["wasm"], logSeverityLevel: 3, extra: model.extra };
    session = await ort.InferenceSession.create(bytes, options);
  } catch (error) {
    const why = String(error?.message ?? error).replace(/[.\s]+$/, "");
    throw new Error(`The model cannot be opened: ${why}. Write this page again with xdet page.`);
  }
}

async function detect(source) {
  const started = performance.now();
  const { bitmap, picture } = await decode(source);
  const decoded = performance.now();
  const pixels = networkPixels(picture, model.image);
  const resized = performance.now();
  const feeds = { image: new ort.Tensor("uint8", pixels, fedShape(picture, model.image)) };
  const found = await session.run(feeds);
  const times = { decode: decoded - started, resize: resized - decoded, network: performance.now() - resized };
  for (const tensor of Object.values(feeds)) tensor.dispose();
  return { bitmap, boxes: rows(found, placement(model.image, picture)), times };
}

/** The valid rows, best score first; corners as fractions of the photograph, which stands at `at` in the network's picture. */
function rows(found, at) {
  const [boxes, scores] = [found.detection_boxes.data, found.detection_scores.data];
  const axes = [[at.left, at.width, model.image.width], [at.top, at.height, model.image.height]];
  const inPhotograph = (value, k) => {
    const [start, size, whole] = axes[k % 2];
    return size === whole ? value : Math.min(Math.max((value * whole - start) / size, 0), 1);
  };
  return Array.from({ length: found.num_detections.data[0] }, (_, i) => ({
    box: Array.from(boxes.slice(4 * i, 4 * i + 4), inPhotograph),
    score: scores[i],
    classId: found.detection_classes.data[i],
    anchor: found.detection_anchors.data[i],
  }));
}
