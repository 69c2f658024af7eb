/* uPlot, with candles. Colours are the style sheet's. */

const HEIGHT = 280;
// So many values have a point each.
const FEW = 40;
const TONES = 6;
const CANDLE = ["o", "h", "l", "c", "v"];

/** A colour of the style sheet as the canvas takes it. */
function colour(name) {
  const probe = document.getElementById("probe");
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

const palette = () => ({
  soft: colour("--soft"),
  grid: colour("--line"),
  up: colour("--good"),
  down: colour("--bad"),
  volume: colour("--volume"),
  lines: Array.from({ length: TONES }, (_, line) => colour(`--chart-${line}`)),
});

/** Draws what `series.js` makes of entries into an element, which keeps its size. */
export class Chart {
  /**
   * @param {HTMLElement} host of the canvas
   * @param {function(number|null): void} pointed told which place is pointed at
   */
  constructor(host, pointed) {
    this.host = host;
    this.pointed = pointed;
    this.plot = null;
    this.shape = "";
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(host);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.shape = "";
      if (this.last) this.draw(...this.last);
    });
  }

  size() {
    return { width: Math.max(200, this.host.clientWidth), height: HEIGHT };
  }

  /**
   * @param {Object} model as `drawing` returns it
   * @param {number} chosen which symbol of candles
   * @param {Set<string>} hidden names of lines that are not drawn
   */
  draw(model, chosen, hidden) {
    this.last = [model, chosen, hidden];
    const isCandles = model.kind === "candles";
    const candles = isCandles ? (model.columns[chosen] ?? []) : [];
    this.labels = isCandles ? candles.map((candle) => candle.label) : model.labels;
    const columns = isCandles ? CANDLE.map((name) => candles.map((candle) => candle[name])) : model.columns;
    const data = [this.labels.map((_, place) => place), ...columns];
    const shape = JSON.stringify([model.kind, isCandles ? "" : model.names]);
    if (shape !== this.shape) {
      this.plot?.destroy();
      this.shape = shape;
      this.plot = new uPlot(this.options(isCandles ? null : model.names), data, this.host);
    } else {
      this.plot.setData(data);
    }
    if (isCandles) return;
    model.names.forEach((name, line) => {
      const show = !hidden.has(name);
      if (this.plot.series[line + 1].show !== show) this.plot.setSeries(line + 1, { show });
    });
  }

  /** Options for lines of these names, or for candles. */
  options(names) {
    const colours = palette();
    const line = { stroke: colours.soft, grid: { stroke: colours.grid, width: 1 }, ticks: { show: false } };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    return {
      ...this.size(),
      legend: { show: false },
      cursor: { y: false, points: { show: names !== null }, drag: { setScale: false, x: false, y: false } },
      scales: {
        x: { time: false, range: (_, min, max) => [(min ?? 0) - 0.5, Math.max((max ?? 0) + 0.5, 5)] },
        y: { range: (_, min, max) => padded(min, max) },
        v: { range: (_, min, max) => [0, 5 * (max || 1)] },
      },
      axes: [
        {
          ...line,
          font,
          size: 34,
          grid: { show: false },
          incrs: [1, 2, 5, 10, 20, 50, 100, 200],
          space: 110,
          values: (_, places) => places.map((place) => this.labels[place] ?? ""),
        },
        { ...line, font, size: 64 },
      ],
      series: [{}, ...(names === null ? candleSeries() : lineSeries(names, colours.lines))],
      hooks: {
        setCursor: [(plot) => this.pointed(plot.cursor.idx)],
        draw: names === null ? [(plot) => drawCandles(plot, colours)] : [],
      },
    };
  }
}

function padded(min, max) {
  if (min === null || max === null) return [0, 1];
  const size = Math.max(Math.abs(min), Math.abs(max));
  // Between numbers that are almost the same there is none to write at the axis.
  const room = max > min ? Math.max(0.08 * (max - min), 1e-6 * size) : 0.01 * size || 1;
  return [min - room, max + room];
}

const lineSeries = (names, strokes) =>
  names.map((label, index) => ({
    label,
    stroke: strokes[index % TONES],
    width: 1.5,
    spanGaps: true,
    points: { show: (plot) => plot.data[0].length < FEW },
  }));

/** Of the prices only high and low decide about the scale; all are drawn by hand. */
const candleSeries = () =>
  CANDLE.map((label) => ({
    label,
    scale: label === "v" ? "v" : "y",
    auto: label !== "o" && label !== "c",
    paths: () => null,
    points: { show: false },
  }));

function drawCandles(plot, colours) {
  const { ctx, bbox, data } = plot;
  const [places, opens, highs, lows, closes, volumes] = data;
  const dot = devicePixelRatio;
  const step = plot.valToPos(1, "x", true) - plot.valToPos(0, "x", true);
  const width = Math.max(dot, Math.min(Math.round(0.7 * step), 16 * dot));
  const y = (value) => Math.round(plot.valToPos(value, "y", true));
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = dot;
  for (const place of places) {
    if ([opens, highs, lows, closes, volumes].some((column) => column[place] === null)) continue;
    const middle = Math.round(plot.valToPos(place, "x", true));
    const left = middle - width / 2;
    const volume = plot.valToPos(volumes[place], "v", true);
    ctx.fillStyle = colours.volume;
    ctx.fillRect(left, volume, width, bbox.top + bbox.height - volume);
    const rises = closes[place] >= opens[place];
    ctx.strokeStyle = ctx.fillStyle = rises ? colours.up : colours.down;
    const top = y(Math.max(opens[place], closes[place]));
    const bottom = Math.max(y(Math.min(opens[place], closes[place])), top + dot);
    ctx.fillRect(middle - dot / 2, y(highs[place]), dot, top - y(highs[place]));
    ctx.fillRect(middle - dot / 2, bottom, dot, y(lows[place]) - bottom);
    // Hollow where the price rose, so that it can be told without colours.
    const hollow = rises && width > 4 * dot && bottom - top > 2 * dot;
    if (hollow) ctx.strokeRect(left + dot / 2, top + dot / 2, width - dot, bottom - top - dot);
    else ctx.fillRect(left, top, width, bottom - top);
  }
  ctx.restore();
}
