// Pictures with zoom, contrast, values under the pointer, profiles and slices. Plain canvas; nothing is loaded.
"use strict";
(async function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const place = document.getElementById("pictures");
  const shelf = element("div", { className: "shelf" });
  place.append(shelf);
  const views = {}; // pictures of one shape and pixel move together
  const tables = Object.fromEntries(Object.entries(data.colours).map(([name, anchors]) => [name, table(anchors)]));

  function element(tag, properties, ...inside) {
    const made = Object.assign(document.createElement(tag), properties || {});
    made.append(...inside);
    return made;
  }

  function table(anchors) { // 256 colours, linear between the anchors
    const colours = new Uint8Array(768);
    const rgb = anchors.map((a) => [0, 2, 4].map((i) => parseInt(a.slice(i, i + 2), 16)));
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * (rgb.length - 1), low = Math.min(Math.floor(at), rgb.length - 2);
      for (let c = 0; c < 3; c++) colours[3 * i + c] = rgb[low][c] + (at - low) * (rgb[low + 1][c] - rgb[low][c]);
    }
    return colours;
  }

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint16Array(await new Response(stream).arrayBuffer());
  }

  function number(value) {
    if (!Number.isFinite(value)) return "no value";
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(3) : value.toPrecision(4);
  }

  function length(metres) { // with the prefix that suits
    const steps = [[1, "m"], [1e-3, "mm"], [1e-6, "µm"], [1e-9, "nm"], [1e-12, "pm"]];
    const [size, unit] = steps.find(([s]) => Math.abs(metres) >= s) || steps[4];
    return `${+(metres / size).toPrecision(3)} ${unit}`;
  }

  function round(value) { // the largest of 1, 2, 5 times a power of ten that is not above
    const power = 10 ** Math.floor(Math.log10(value));
    return [5, 2, 1].find((s) => s * power <= value) * power;
  }

  // One picture: `get(row, column)` is the stored number, 0 for none.
  function Picture(pane, title, rows, columns, get, contrast) {
    const self = { redraw };
    const canvas = element("canvas", { width: 720, height: 720 });
    const bar = element("canvas", { className: "bar", width: 720, height: 60 });
    const read = element("div", { className: "read", textContent: " " });
    const profile = element("canvas", { className: "profile", width: 720, height: 220, hidden: true });
    const figure = element("figure", { className: "pane" });
    const caption = element("figcaption", { textContent: title });
    if (pane.note) caption.append(" ", element("small", { textContent: pane.note }));
    figure.append(caption, canvas, bar, read, profile);
    canvas.height = Math.round(Math.min(900, Math.max(200, (720 * rows) / columns)));
    const key = `${rows} ${columns} ${pane.pixel}`;
    const view = (views[key] = views[key] || { zoom: 1, x: columns / 2, y: rows / 2, members: [] });
    view.members.push(self);
    const small = document.createElement("canvas");
    small.width = columns; small.height = rows;
    let line = null, dragged = null;

    const value = (r, c) => { const n = get(r, c); return n ? pane.low + ((n - 1) / 65534) * (pane.high - pane.low || 1) : NaN; };
    const fit = () => Math.min(canvas.width / columns, canvas.height / rows);
    const scale = () => fit() * view.zoom;
    const toPixel = (event) => {
      const box = canvas.getBoundingClientRect();
      const x = ((event.clientX - box.left) * canvas.width) / box.width, y = ((event.clientY - box.top) * canvas.height) / box.height;
      return [view.x + (x - canvas.width / 2) / scale(), view.y + (y - canvas.height / 2) / scale()];
    };

    function paint() { // values to colours, once for each contrast
      const image = new ImageData(columns, rows), colours = tables[contrast.colours];
      const span = contrast.end - contrast.start || 1;
      for (let r = 0, i = 0; r < rows; r++) for (let c = 0; c < columns; c++, i += 4) {
        const v = value(r, c);
        if (Number.isNaN(v)) { image.data.set([128, 128, 128, (r + c) % 4 ? 40 : 120], i); continue; }
        const k = 3 * Math.max(0, Math.min(255, Math.round((255 * (v - contrast.start)) / span)));
        image.data[i] = colours[k]; image.data[i + 1] = colours[k + 1]; image.data[i + 2] = colours[k + 2]; image.data[i + 3] = 255;
      }
      small.getContext("2d").putImageData(image, 0, 0);
    }

    function show() { // the part in view, with scale bar and profile line
      const pen = canvas.getContext("2d"), s = scale();
      pen.setTransform(1, 0, 0, 1, 0, 0);
      pen.clearRect(0, 0, canvas.width, canvas.height);
      pen.imageSmoothingEnabled = s < 1;
      pen.setTransform(s, 0, 0, s, canvas.width / 2 - view.x * s, canvas.height / 2 - view.y * s);
      pen.drawImage(small, 0, 0);
      if (line) {
        pen.strokeStyle = "#e69f00"; pen.lineWidth = 3 / s;
        pen.beginPath(); pen.moveTo(line[0], line[1]); pen.lineTo(line[2], line[3]); pen.stroke();
      }
      pen.setTransform(1, 0, 0, 1, 0, 0);
      const unit = pane.pixel || 1, long = round((canvas.width / 4 / s) * unit), wide = (long / unit) * s;
      pen.fillStyle = "rgba(0,0,0,.55)"; pen.fillRect(10, canvas.height - 58, Math.max(wide, 90) + 24, 48);
      pen.fillStyle = "#fff"; pen.fillRect(22, canvas.height - 24, wide, 6);
      pen.font = "22px system-ui, sans-serif";
      pen.fillText(pane.pixel ? length(long) : `${long} pixels`, 22, canvas.height - 32);
    }

    function showBar() { // arrows where values lie beyond
      const pen = bar.getContext("2d"), colours = tables[contrast.colours], ink = getComputedStyle(document.body).color;
      pen.clearRect(0, 0, 720, 60);
      for (let x = 0; x < 640; x++) {
        const k = 3 * Math.floor((x / 639) * 255);
        pen.fillStyle = `rgb(${colours[k]},${colours[k + 1]},${colours[k + 2]})`; pen.fillRect(40 + x, 4, 1, 22);
      }
      pen.fillStyle = ink; pen.font = "22px system-ui, sans-serif";
      const beyond = 1e-3 * (pane.high - pane.low);
      if (pane.low < contrast.start - beyond) triangle(pen, 34, 15, -1);
      if (pane.high > contrast.end + beyond) triangle(pen, 686, 15, 1);
      pen.textAlign = "left"; pen.fillText(number(contrast.start), 40, 52);
      pen.textAlign = "center"; pen.fillText(pane.unit ? `[${pane.unit}]` : "", 360, 52);
      pen.textAlign = "right"; pen.fillText(number(contrast.end), 680, 52);
    }

    function triangle(pen, x, y, way) {
      pen.beginPath(); pen.moveTo(x, y - 10); pen.lineTo(x + 16 * way, y); pen.lineTo(x, y + 10); pen.fill();
    }

    function showProfile() {
      if (!line) { profile.hidden = true; return; }
      profile.hidden = false;
      const long = Math.hypot(line[2] - line[0], line[3] - line[1]), count = Math.max(2, Math.round(long));
      const values = Array.from({ length: count }, (_, i) => {
        const t = i / (count - 1), r = Math.floor(line[1] + t * (line[3] - line[1])), c = Math.floor(line[0] + t * (line[2] - line[0]));
        return r >= 0 && c >= 0 && r < rows && c < columns ? value(r, c) : NaN;
      });
      const known = values.filter(Number.isFinite), low = Math.min(...known), high = Math.max(...known), span = high - low || 1;
      const pen = profile.getContext("2d"), ink = getComputedStyle(document.body).color;
      pen.clearRect(0, 0, 720, 220);
      pen.strokeStyle = pen.fillStyle = ink; pen.lineWidth = 1; pen.strokeRect(110, 10, 600, 170);
      pen.font = "20px system-ui, sans-serif"; pen.textAlign = "right";
      pen.fillText(number(high), 104, 26); pen.fillText(number(low), 104, 182); pen.fillText(pane.unit, 104, 104);
      pen.textAlign = "left"; pen.fillText("0", 112, 204); pen.textAlign = "right";
      pen.fillText(pane.pixel ? length(long * pane.pixel) : `${Math.round(long)} pixels`, 710, 204);
      pen.strokeStyle = "#0072b2"; pen.lineWidth = 3; pen.beginPath();
      values.forEach((v, i) => { if (Number.isFinite(v)) pen.lineTo(110 + (600 * i) / (count - 1), 178 - (166 * (v - low)) / span); });
      pen.stroke();
    }

    function redraw(values) { if (values !== false) paint(); show(); showBar(); showProfile(); }
    const everywhere = () => view.members.forEach((m) => m.redraw(false));

    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const [x, y] = toPixel(event), factor = event.deltaY < 0 ? 1.25 : 0.8, zoom = Math.max(1, Math.min(64, view.zoom * factor));
      view.x = x + ((view.x - x) * view.zoom) / zoom; view.y = y + ((view.y - y) * view.zoom) / zoom; view.zoom = zoom;
      if (zoom === 1) { view.x = columns / 2; view.y = rows / 2; }
      everywhere();
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      const at = toPixel(event);
      dragged = { at, line: event.shiftKey }; if (event.shiftKey) line = [...at, ...at];
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = toPixel(event), r = Math.floor(y), c = Math.floor(x);
      if (r >= 0 && c >= 0 && r < rows && c < columns) {
        const where = pane.pixel ? `${length(c * pane.pixel)}, ${length(r * pane.pixel)}` : "";
        read.textContent = `${number(value(r, c))} ${pane.unit}  at row ${r * pane.step}, column ${c * pane.step}  ${where}`;
      }
      if (!dragged) return;
      if (dragged.line) { line = [...dragged.at, x, y]; redraw(false); return; }
      view.x += dragged.at[0] - x; view.y += dragged.at[1] - y; everywhere();
    });
    window.addEventListener("pointerup", () => { dragged = null; });
    canvas.addEventListener("dblclick", () => { Object.assign(view, { zoom: 1, x: columns / 2, y: rows / 2 }); line = null; everywhere(); });
    self.figure = figure;
    return self;
  }

  function slider(label, low, high, step, start, changed) {
    const input = element("input", { type: "range", min: low, max: high, step, value: start });
    input.addEventListener("input", () => changed(Number(input.value)));
    return element("label", {}, `${label} `, input);
  }

  function controls(pane, contrast, pictures) {
    const all = () => pictures.forEach((p) => p.redraw());
    const step = (pane.high - pane.low) / 500 || 1;
    const choice = element("select", { ariaLabel: "colours" }, ...Object.keys(tables).map((n) => element("option", { value: n, textContent: n, selected: n === contrast.colours })));
    choice.addEventListener("change", () => { contrast.colours = choice.value; all(); });
    return element("div", { className: "controls" },
      slider("from", pane.low, pane.high, step, contrast.start, (v) => { contrast.start = v; all(); }),
      slider("to", pane.low, pane.high, step, contrast.end, (v) => { contrast.end = v; all(); }), choice);
  }

  const made = [];
  for (const pane of data.panes) {
    const numbers = await unpack(pane.values), contrast = { start: pane.start, end: pane.end, colours: pane.colours };
    let pictures = [];
    if (pane.shape.length === 2) {
      const [rows, columns] = pane.shape;
      pictures = [Picture(pane, pane.title, rows, columns, (r, c) => numbers[r * columns + c], contrast)];
    } else { // a volume in three planes, each with its slider
      const [nz, ny, nx] = pane.shape, at = [nz, ny, nx].map((n) => Math.floor(n / 2)), [z, y, x] = pane.axes;
      const planes = [
        [0, ny, nx, (r, c) => numbers[(at[0] * ny + r) * nx + c], `${y} ${x}`],
        [1, nz, nx, (r, c) => numbers[(r * ny + at[1]) * nx + c], `${z} ${x}`],
        [2, nz, ny, (r, c) => numbers[(r * ny + c) * nx + at[2]], `${z} ${y}`],
      ];
      for (const [axis, rows, columns, get, plane] of planes) {
        const picture = Picture(pane, `${pane.title}, plane ${plane}`, rows, columns, get, contrast);
        if (pane.shape[axis] > 1) picture.figure.append(element("div", { className: "controls" }, slider(pane.axes[axis], 0, pane.shape[axis] - 1, 1, at[axis], (v) => { at[axis] = v; picture.redraw(); })));
        pictures.push(picture);
      }
    }
    pictures[0].figure.append(controls(pane, contrast, pictures));
    pictures.forEach((p) => { shelf.append(p.figure); p.redraw(); });
    made.push(...pictures);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => made.forEach((p) => p.redraw(false)));
  document.body.dataset.ready = String(made.length);
})().catch((error) => { document.getElementById("pictures").append(`The pictures could not be drawn: ${error}`); });
