// Finds poses in a browser with a file of `poseglass export --to onnx --whole-image`.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more need a page that is isolated from other origins

// Open a file. Resolves to a session for `findPoses`.
export async function openModel(url) {
  return ort.InferenceSession.create(url);
}

// Find the instances of an image that the browser has decoded (ImageBitmap, <img>, <canvas> or <video>).
// boxes: [[x0, y0, x1, y1], ...] in image pixels, for a file that takes boxes; the whole image is the default.
// Resolves to [{ box: [x0, y0, x1, y1], points: [{ x, y, score }, ...] }, ...] in image pixels.
export async function findPoses(session, image, boxes) {
  const [width, height] = [image.videoWidth || image.width, image.videoHeight || image.height];
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  const inputs = { image: new ort.Tensor("uint8", rgb, [height, width, 3]) };
  if (session.inputNames.includes("boxes_xyxy")) {
    const given = boxes ?? [[-0.5, -0.5, width - 0.5, height - 0.5]]; // pixel centres are on whole numbers
    inputs.boxes_xyxy = new ort.Tensor("float32", Float32Array.from(given.flat()), [given.length, 4]);
  }
  const { xy, score, box_xyxy } = await session.run(inputs, ["xy", "score", "box_xyxy"]);
  const [people, keypoints] = xy.dims;
  return Array.from({ length: people }, (_, n) => ({
    box: Array.from(box_xyxy.data.subarray(4 * n, 4 * n + 4)),
    points: Array.from({ length: keypoints }, (_, k) => {
      const at = n * keypoints + k;
      return { x: xy.data[2 * at], y: xy.data[2 * at + 1], score: score.data[at] };
    }),
  }));
}
