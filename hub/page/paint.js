/** What charts show besides lines: missing data, the alert zone, the live dot, lone readings. */

import { withAlpha } from "./palette.js";

const FONT_SIZE = 11;

/**
 * @typedef {{left: number, top: number, width: number, height: number}} Box canvas pixels
 * @typedef {import("./palette.js").Palette} Palette
 */

/** @param {number} ratio @param {number} [weight] @returns {string} */
export function font(ratio, weight = 500) {
  return `${weight} ${FONT_SIZE * ratio}px Inter, system-ui, sans-serif`;
}

/**
 * Hatch a stretch without data: amber where data is missing, grey before the first reading.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Box} box
 * @param {{palette: Palette, ratio: number, isMissing: boolean}} options
 */
export function paintGap(context, { left, top, width, height }, { palette, ratio, isMissing }) {
  const color = isMissing ? palette.hatch : palette.off;
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  context.fillStyle = withAlpha(color, isMissing ? 0.1 : 0.05);
  context.fillRect(left, top, width, height);
  context.strokeStyle = withAlpha(color, isMissing ? 0.36 : 0.16);
  context.lineWidth = ratio;
  context.beginPath();
  const step = 8 * ratio;
  // Anchored to the canvas, so that the pattern stands still while the gap moves through it.
  for (let x = Math.floor((left - height) / step) * step; x < left + width; x += step) {
    context.moveTo(x, top + height);
    context.lineTo(x + height, top);
  }
  context.stroke();
  context.font = font(ratio, 600);
  const text = "no data";
  if (width > context.measureText(text).width + 16 * ratio) {
    context.textAlign = "center";
    context.textBaseline = "middle";
    plate(context, text, left + width / 2, top + height / 2, ratio, palette.surface);
    context.fillStyle = isMissing ? palette.warn : palette.text3;
    context.fillText(text, left + width / 2, top + height / 2);
  }
  context.restore();
}

/** @param {CanvasRenderingContext2D} context @param {string} text @param {number} x @param {number} y @param {number} ratio @param {string} color */
function plate(context, text, x, y, ratio, color) {
  const width = context.measureText(text).width + 12 * ratio;
  context.fillStyle = withAlpha(color, 0.72);
  context.beginPath();
  context.roundRect(x - width / 2, y - 10 * ratio, width, 20 * ratio, 6 * ratio);
  context.fill();
}

/**
 * Tint what lies outside the normal range and say where it begins.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Box} box
 * @param {{y: number, isAbove: boolean, text: string, palette: Palette, ratio: number}} options y: the limit in canvas px
 */
export function paintAlertZone(context, { left, top, width, height }, { y, isAbove, text, palette, ratio }) {
  const bottom = top + height;
  if (isAbove ? y <= top : y >= bottom) return;
  const edge = Math.max(top, Math.min(bottom, y));
  context.save();
  context.fillStyle = withAlpha(palette.crit, 0.1);
  if (isAbove) context.fillRect(left, top, width, edge - top);
  else context.fillRect(left, edge, width, bottom - edge);
  if (y > top && y < bottom) {
    context.strokeStyle = withAlpha(palette.crit, 0.75);
    context.lineWidth = ratio;
    context.setLineDash([4 * ratio, 4 * ratio]);
    context.beginPath();
    context.moveTo(left, Math.round(y) + 0.5);
    context.lineTo(left + width, Math.round(y) + 0.5);
    context.stroke();
    context.font = font(ratio, 600);
    context.fillStyle = palette.crit;
    context.textAlign = "left";
    const inside = isAbove ? y - top > 18 * ratio : bottom - y > 18 * ratio;
    const below = isAbove ? !inside : inside;
    context.textBaseline = below ? "top" : "bottom";
    context.fillText(text, left + 6 * ratio, y + (below ? 4 : -3) * ratio);
  } else {
    // The whole chart lies in the zone: the limit itself is out of sight, so it is named at that edge.
    context.font = font(ratio, 600);
    context.fillStyle = palette.crit;
    context.textAlign = "left";
    context.textBaseline = isAbove ? "bottom" : "top";
    context.fillText(`${isAbove ? "↓" : "↑"} ${text}`, left + 6 * ratio, isAbove ? bottom - 6 * ratio : top + 6 * ratio);
  }
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} x canvas px
 * @param {number} y canvas px
 * @param {{color: string, ratio: number}} options
 */
export function paintLiveDot(context, x, y, { color, ratio }) {
  context.save();
  context.fillStyle = withAlpha(color, 0.28);
  context.beginPath();
  context.arc(x, y, 7 * ratio, 0, 7);
  context.fill();
  context.fillStyle = color;
  context.beginPath();
  context.arc(x, y, 3.25 * ratio, 0, 7);
  context.fill();
  context.restore();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {[number, number][]} points canvas px
 * @param {{color: string, ratio: number}} options
 */
export function paintDots(context, points, { color, ratio }) {
  context.save();
  context.fillStyle = color;
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, 1.75 * ratio, 0, 7);
    context.fill();
  }
  context.restore();
}
