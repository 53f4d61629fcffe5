// xdet page: a photograph as the network takes it, the same bytes as xdet/pictures/images.py gives for the same RGB values.
//
// A picture is {data, width, height, channels}: bytes row by row, 3 (RGB) or 4 (RGBA, alpha is dropped) for each pixel.

const LARGEST_PIXELS = 100_000_000;

/** A Blob's or an ImageBitmap's own RGB values: turned by its EXIF orientation, no colour profile applied, as xdet reads it. Gives {bitmap, picture}. */
export async function decode(source) {
  let bitmap = source;
  if (source instanceof Blob) {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
    bitmap = await createImageBitmap(source, options).catch(() => null);
    if (bitmap === null) throw new Error("is no picture that this browser can read; give a JPEG, PNG or WebP file.");
  }
  const { width, height } = bitmap;
  if (width * height > LARGEST_PIXELS) throw new Error("has more than 100 million pixels: too large; scale it down first.");
  const drawing = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!drawing) throw new Error("does not fit into this browser's memory; scale it down first.");
  drawing.drawImage(bitmap, 0, 0);
  const { data } = drawing.getImageData(0, 0, width, height);
  const whole = isOpaque(data) ? data : underTransparency(bitmap);
  return { bitmap, picture: { data: whole, width, height, channels: 4 } };
}

function isOpaque(data) {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

/** RGBA of a picture with transparent parts: a canvas loses the colours there, a texture keeps them; xdet does, too. */
function underTransparency(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new Error("has transparent parts, whose colours this browser does not tell; save it without transparency.");
  }
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const data = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return data;
}

/** Where a picture stands in the one that boxes are fractions of: over all of it, or between a letterbox's bars. */
export function placement({ width, height, resize: rule, any_size: anySize }, picture) {
  if (rule !== "letterbox" || anySize) return { left: 0, top: 0, width, height };
  const scale = Math.min(height / picture.height, width / picture.width);
  const inner = [picture.width, picture.height].map((side) => Math.max(1, halfToEven(side * scale)));
  const [left, top] = [width - inner[0], height - inner[1]].map((bars) => halfToEven(bars / 2 - 0.1));
  return { left, top, width: inner[0], height: inner[1] };
}

/** The dimensions of what networkPixels gives, as the model's input has them. */
export function fedShape(picture, { width, height, color, any_size: anySize }) {
  return anySize ? [1, picture.height, picture.width, 3] : [1, height, width, color === "grey" ? 1 : 3];
}

/** A picture as the model takes it; `image` is what its document says of size, rule and channels. */
export function networkPixels(picture, image) {
  if (image.any_size) return toRgb(picture); // the model has its rule inside
  const { width, height, resize: rule, color } = image;
  const rgb = rule === "letterbox" ? letterbox(picture, image) : resize(picture, width, height, rule);
  if (color === "rgb") return rgb;
  const pixels = new Uint8Array(color === "grey" ? width * height : rgb.length);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b] = [rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2]];
    if (color === "bgr") pixels.set([b, g, r], 3 * i);
    else if (color === "grey") pixels[i] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    else throw new Error(`the color ${color} is not known to this page`);
  }
  return pixels;
}

const PADDING = 114; // of a letterbox's bars

function letterbox(picture, image) {
  const at = placement(image, picture);
  const inner = resize(picture, at.width, at.height, "bilinear");
  const rgb = new Uint8Array(image.width * image.height * 3).fill(PADDING);
  for (let y = 0; y < at.height; y++) {
    const row = inner.subarray(y * at.width * 3, (y + 1) * at.width * 3);
    rgb.set(row, ((at.top + y) * image.width + at.left) * 3);
  }
  return rgb;
}

const round = Math.fround; // to float32, in which two of the rules count

/** Stretch a picture to width x height; gives RGB. */
function resize(picture, width, height, rule) {
  if (picture.width === width && picture.height === height) return toRgb(picture);
  if (rule === "nearest") return nearest(picture, width, height);
  if (rule === "bilinear") return bilinear(picture, width, height);
  if (rule === "bilinear-antialias") return antialias(picture, width, height);
  throw new Error(`the resize rule ${rule} is not known to this page`);
}

function toRgb({ data, width, height, channels }) {
  if (channels === 3) return data.slice();
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += channels) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return rgb;
}

const clamp = (index, size) => Math.min(Math.max(index, 0), size - 1);

/** Half-pixel centres of the result in the source, in float32. */
function centres(source, target) {
  const ratio = round(source / target);
  return Array.from({ length: target }, (_, i) => round(round(i + 0.5) * ratio));
}

function nearest({ data, width: columns, height: rows, channels }, width, height) {
  const lefts = centres(columns, width).map((x) => clamp(Math.floor(x), columns) * channels);
  const tops = centres(rows, height).map((y) => clamp(Math.floor(y), rows) * columns * channels);
  const rgb = new Uint8Array(width * height * 3);
  let to = 0;
  for (const top of tops) {
    for (const left of lefts) {
      for (let c = 0; c < 3; c++) rgb[to++] = data[top + left + c];
    }
  }
  return rgb;
}

/** The two source pixels of every result pixel along one axis, and the weight of the second. */
function neighbours(source, target) {
  return centres(source, target).map((centre) => {
    const x = round(centre - 0.5);
    return [clamp(Math.floor(x), source), clamp(Math.ceil(x), source), round(x - Math.floor(x))];
  });
}

const mix = (low, high, weight) => round(low + round(round(high - low) * weight));

function halfToEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor & 1) : Math.floor(value + 0.5);
}

function bilinear({ data, width: columns, height: rows, channels }, width, height) {
  const across = neighbours(columns, width);
  const lineOf = (row) => {
    const line = new Float32Array(width * 3);
    const start = row * columns * channels;
    let to = 0;
    for (const [left, right, weight] of across) {
      const [a, b] = [start + left * channels, start + right * channels];
      for (let c = 0; c < 3; c++) line[to++] = mix(data[a + c], data[b + c], weight);
    }
    return line;
  };
  const rgb = new Uint8Array(width * height * 3);
  let lines = new Map(); // the source rows of the result row before: enlarging uses them again
  let to = 0;
  for (const [top, bottom, weight] of neighbours(rows, height)) {
    lines = new Map([top, bottom].map((row) => [row, lines.get(row) ?? lineOf(row)]));
    const [a, b] = [lines.get(top), lines.get(bottom)];
    for (let x = 0; x < a.length; x++) rgb[to++] = halfToEven(mix(a[x], b[x], weight));
  }
  return rgb;
}

// Pillow's BILINEAR: a triangle as wide as a result pixel, weights in 22 bits, each pass rounded, in the order of Pillow 13.
const BITS = 22;

/** For every result pixel along one axis: the first source pixel, and the integer weight of it and of those behind it. */
function triangles(source, target) {
  const scale = source / target;
  const reach = Math.max(scale, 1);
  return Array.from({ length: target }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), source);
    const weights = [];
    for (let x = first; x < end; x++) {
      weights.push(Math.max(1 - Math.abs((x - centre + 0.5) * (1 / reach)), 0));
    }
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: Int32Array.from(weights, (w) => Math.trunc(0.5 + (w / sum) * 2 ** BITS)) };
  });
}

function antialias(picture, width, height) {
  const shrink = picture.height - height;
  const columnsFirst = shrink > 0 && shrink > 2 * (picture.width - width);
  return (columnsFirst ? across(down(picture, height), width) : down(across(picture, width), height)).data;
}

function across(picture, width) {
  const { data, width: columns, height, channels } = picture;
  if (columns === width) return { data: toRgb(picture), width, height, channels: 3 };
  const rgb = new Uint8Array(width * height * 3);
  const weighed = triangles(columns, width);
  for (let row = 0, to = 0; row < height; row++) {
    for (const { first, weights } of weighed) {
      sum(data, (row * columns + first) * channels, channels, weights, rgb, to);
      to += 3;
    }
  }
  return { data: rgb, width, height, channels: 3 };
}

function down(picture, height) {
  const { data, width, height: rows, channels } = picture;
  if (rows === height) return picture;
  const rgb = new Uint8Array(width * height * 3);
  let to = 0;
  for (const { first, weights } of triangles(rows, height)) {
    for (let column = 0; column < width; column++, to += 3) {
      sum(data, (first * width + column) * channels, width * channels, weights, rgb, to);
    }
  }
  return { data: rgb, width, height, channels: 3 };
}

/** One weighted pixel: integers below 2^31, as the weights add up to about 2^22. */
function sum(data, start, step, weights, result, to) {
  let [r, g, b] = [1 << (BITS - 1), 1 << (BITS - 1), 1 << (BITS - 1)];
  for (let i = 0, from = start; i < weights.length; i++, from += step) {
    const weight = weights[i];
    r += data[from] * weight;
    g += data[from + 1] * weight;
    b += data[from + 2] * weight;
  }
  result[to] = Math.min(r >> BITS, 255);
  result[to + 1] = Math.min(g >> BITS, 255);
  result[to + 2] = Math.min(b >> BITS, 255);
}
