// A session of ONNX Runtime in JavaScript, asked by frames; what xdet/data/ort_node.mjs and ort_page.html share.
//
// A frame, both ways: uint32 length of a header, uint32 length of a body (little endian), the header as JSON, the body.
//   {"op": "open", "extra": {...}} + model -> {"outputs": [...]}; session entries as SessionOptions.extra nests them
//   {"op": "run", "dims": [...], "names": [...]} + uint8 pixels
//                                         -> {"tensors": [{"dtype", "dims", "size"}]} + their bytes, one behind the other
// A failure answers {"error": "..."}.

export function serve(ort, provider) {
  if (ort.env.wasm) ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  let session = null;

  async function open({ extra }, body) {
    await session?.release?.(); // from 1.17 on
    const options = { executionProviders: [provider], logSeverityLevel: 3, extra };
    session = await ort.InferenceSession.create(body, options);
    return [{ outputs: session.outputNames }, []];
  }

  async function run({ dims, names }, body) {
    // all outputs: onnxruntime-node gives some of them under the names of others (1.20 and older)
    const found = await session.run({ image: new ort.Tensor("uint8", body, dims) });
    const parts = names.map((name) => {
      const { data } = found[name];
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    });
    const tensors = names.map((name, i) => ({ dtype: found[name].type, dims: found[name].dims, size: parts[i].length }));
    return [{ tensors }, parts];
  }

  // header, body (nobody else's bytes) -> the parts of the answer's frame
  return async function answer(header, body) {
    try {
      return frame(...(header.op === "open" ? await open(header, body) : await run(header, body)));
    } catch (error) {
      return frame({ error: String(error?.message ?? error) }, []);
    }
  };
}

export function lengths(view) {
  return [view.getUint32(0, true), view.getUint32(4, true)];
}

function frame(header, parts) {
  const text = new TextEncoder().encode(JSON.stringify(header));
  const sizes = new DataView(new ArrayBuffer(8));
  sizes.setUint32(0, text.length, true);
  sizes.setUint32(4, parts.reduce((sum, part) => sum + part.length, 0), true);
  return [new Uint8Array(sizes.buffer), text, ...parts];
}
