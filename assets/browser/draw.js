// Draw a frame with its hands on a canvas, as handful/overlay.py draws them on pictures.

// `opacity` is that of boxes and heatmaps. The context may be scaled; sizes are in pixels of the frame.
export function drawFrame(context, frame, { width, height, mirror, hands = [], gradcam, colors, opacity = 1 }) {
  const base = context.getTransform();
  if (mirror) context.transform(-1, 0, 0, 1, width, 0);
  context.drawImage(frame, 0, 0, width, height);
  context.globalAlpha = opacity;
  if (gradcam) for (const hand of hands) if (hand.heatmap) drawHeatmap(context, hand, colors);
  context.setTransform(base); // text is never mirrored
  for (const hand of hands) drawBox(context, hand, colors.sides[hand.side], mirror, width, height);
  context.globalAlpha = 1;
}

const MAP_SIZE_PX = 64; // a heatmap is enlarged to this before it fades and is coloured, so that both are smooth
const FADE = Float32Array.from({ length: MAP_SIZE_PX ** 2 }, (_, i) => {
  const [u, v] = [i % MAP_SIZE_PX, Math.floor(i / MAP_SIZE_PX)].map((index) => (2 * index + 1) / MAP_SIZE_PX - 1);
  const t = Math.min(Math.max((1 - (u ** 4 + v ** 4) ** 0.25) / 0.4, 0), 1);
  return t * t * (3 - 2 * t); // 1 inside the crop, 0 at its edge: no square shows
});

function drawHeatmap(context, { crop: [x0, y0, x1, y1], heatmap }, { colormap, max_alpha: maxAlpha }) {
  const map = new OffscreenCanvas(heatmap.width, heatmap.height);
  const values = heatmap.values.flatMap((value) => [255 * value, 0, 0, 255]);
  map.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(values), map.width, map.height), 0, 0);
  const large = new OffscreenCanvas(MAP_SIZE_PX, MAP_SIZE_PX);
  const largeContext = large.getContext("2d", { willReadFrequently: true });
  largeContext.imageSmoothingQuality = "high";
  largeContext.drawImage(map, 0, 0, MAP_SIZE_PX, MAP_SIZE_PX);
  const pixels = largeContext.getImageData(0, 0, MAP_SIZE_PX, MAP_SIZE_PX);
  FADE.forEach((fade, i) => {
    const value = (fade * pixels.data[4 * i]) / 255;
    const position = value * (colormap.length - 1);
    const low = colormap[Math.floor(position)];
    const high = colormap[Math.ceil(position)];
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = low[k] + (high[k] - low[k]) * (position % 1);
    pixels.data[4 * i + 3] = 255 * maxAlpha * value;
  });
  largeContext.putImageData(pixels, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(large, x0, y0, x1 - x0, y1 - y0);
}

function drawBox(context, { box: [x0, y0, x1, y1], fingers, side }, color, mirror, width, height) {
  const lineWidth = Math.max(1, Math.floor(Math.min(height, width) / 240));
  const fontSize = Math.max(12, Math.floor(Math.min(height, width) / 18));
  const left = Math.max(mirror ? width - x1 : x0, lineWidth / 2);
  const right = Math.min(mirror ? width - x0 : x1, width - lineWidth / 2);
  const top = Math.max(y0, lineWidth / 2);
  const bottom = Math.min(y1, height - lineWidth / 2);
  context.strokeStyle = context.fillStyle = color;
  context.lineWidth = lineWidth;
  context.strokeRect(left, top, right - left, bottom - top);
  const text = `${side} · ${fingers}`;
  const padding = Math.floor(fontSize / 3);
  context.font = `600 ${fontSize}px system-ui, sans-serif`;
  const textWidth = context.measureText(text).width + 2 * padding;
  const x = Math.max(Math.min(left, width - textWidth), 0);
  const y = Math.max(top - fontSize - 2 * padding, 0);
  context.fillRect(x, y, textWidth, fontSize + 2 * padding);
  context.fillStyle = "white";
  context.textBaseline = "middle";
  context.fillText(text, x + padding, y + padding + fontSize / 2);
}
