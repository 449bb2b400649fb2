// What the model found in a picture: from arrays to objects, COCO's format and colours.

const NONE = -1; // score of a row without an object or segment

/**
 * The outputs of the graph for one picture, see docs/deploy.md.
 * Returns objects {box: [x0, y0, x1, y1], score, label, mask: Uint8Array or null}, best first;
 * panoptic {ids, segments: [{id, label, score}]} or null; semantic Int32Array or null.
 */
export function decode(outputs, width, height) {
  const { boxes, scores, classes, masks, panoptic, segment_classes, segment_scores, semantic } = outputs;
  const objects = [];
  for (let i = 0; i < (scores?.length ?? 0); i++) {
    if (scores[i] === NONE) continue;
    objects.push({
      box: Array.from(boxes.subarray(4 * i, 4 * i + 4)),
      score: scores[i],
      label: classes[i],
      mask: masks ? masks.subarray(i * width * height, (i + 1) * width * height) : null,
    });
  }
  const segments = [];
  for (let i = 0; i < (segment_scores?.length ?? 0); i++) {
    if (segment_scores[i] === NONE) continue;
    segments.push({ id: i + 1, label: segment_classes[i], score: segment_scores[i] });
  }
  return {
    width,
    height,
    objects,
    panoptic: panoptic ? { ids: panoptic, segments } : null,
    semantic: semantic ?? null,
  };
}

/**
 * A data set of one picture in COCO's format, with scores.
 * full: width and height of the picture as it came; boxes and masks are given at this size.
 */
export function toCoco(result, objects, description, full, fileName) {
  const xScale = full.width / result.width;
  const yScale = full.height / result.height;
  const annotations = objects.map(({ box, score, label, mask }, i) => {
    const [x0, y0, x1, y1] = [box[0] * xScale, box[1] * yScale, box[2] * xScale, box[3] * yScale];
    const annotation = {
      id: i + 1,
      image_id: 1,
      category_id: description.category_ids[label],
      bbox: [x0, y0, x1 - x0, y1 - y0],
      area: (x1 - x0) * (y1 - y0),
      iscrowd: 0,
      score,
    };
    if (mask) {
      const { counts, area } = encode(mask, result, full);
      Object.assign(annotation, { segmentation: { size: [full.height, full.width], counts }, area });
    }
    return annotation;
  });
  return {
    images: [{ id: 1, file_name: fileName, width: full.width, height: full.height }],
    categories: description.class_names.map((name, k) => ({ id: description.category_ids[k], name })),
    annotations,
  };
}

/** COCO's compressed run lengths of a mask, down the columns, scaled to the size `full`; and its area. */
export function encode(mask, size, full) {
  const rows = Int32Array.from({ length: full.height }, (_, y) => cell(y, size.height, full.height));
  const runs = [];
  let inside = 0;
  let run = 0;
  let area = 0;
  for (let x = 0; x < full.width; x++) {
    const column = cell(x, size.width, full.width);
    for (const row of rows) {
      const value = mask[row * size.width + column];
      area += value;
      if (value !== inside) {
        runs.push(run);
        run = 0;
        inside = value;
      }
      run++;
    }
  }
  runs.push(run);
  return { counts: runs.map((n, i) => characters(n - (i > 2 ? runs[i - 2] : 0))).join(""), area };
}

/** The one of `from` cells that has the centre of place `i` of `to`. */
function cell(i, from, to) {
  return Math.floor(((i + 0.5) * from) / to);
}

/** A number, five bits a character; the sixth bit says whether more follow. */
function characters(number) {
  let text = "";
  let more = true;
  while (more) {
    const low = number & 31;
    number >>= 5;
    more = number !== (low & 16 ? -1 : 0);
    text += String.fromCharCode(48 + low + (more ? 32 : 0));
  }
  return text;
}

const OPACITY = 115; // of 255
const EDGE = 255;

/**
 * Colours the regions of a map of labels on RGBA pixels, with their borders opaque.
 * labels: a number per pixel. colors: of each number, [r, g, b], or undefined for pixels left as they are.
 */
export function paint(rgba, labels, width, height, colors) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const label = labels[i];
      const color = colors[label];
      if (!color) continue;
      const border =
        (x > 0 && labels[i - 1] !== label) ||
        (x < width - 1 && labels[i + 1] !== label) ||
        (y > 0 && labels[i - width] !== label) ||
        (y < height - 1 && labels[i + width] !== label);
      const share = (border ? EDGE : OPACITY) / 255;
      for (let c = 0; c < 3; c++) rgba[4 * i + c] += share * (color[c] - rgba[4 * i + c]);
    }
  }
}
