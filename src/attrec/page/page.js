"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  document.documentElement.classList.add("scripted");

  // Folded parts are printed open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));

  // The map: points by their titles.
  const points = [...document.querySelectorAll("#map .point")];
  const nameOf = (point) => point.querySelector("title").textContent;
  const search = find("find"), found = find("found");
  const show = () => {
    const wanted = search.value.trim().toLowerCase();
    const hits = points.filter((point) => {
      const hit = wanted !== "" && nameOf(point).toLowerCase().includes(wanted);
      point.classList.toggle("hit", hit);
      return hit;
    });
    find("map").classList.toggle("searched", hits.length > 0);
    if (wanted === "") found.textContent = "";
    else if (hits.length === 0) found.textContent = "no item";
    else if (hits.length === 1) found.textContent = nameOf(hits[0]);
    else found.textContent = `${hits.length} items, such as ${nameOf(hits.at(-1))}`;
  };
  if (search) {
    search.addEventListener("input", show);
    find("map").addEventListener("pointerover", (event) => {
      if (event.target.matches(".point") && search.value === "") {
        found.textContent = nameOf(event.target);
      }
    });
  }

  // The slider: y = w · first + (1 − w) · second, ranked anew for every w.
  if (!find("slider-data")) return;
  const data = JSON.parse(find("slider-data").textContent);
  const slider = find("weight"), example = find("example"), ranking = find("ranking");
  const plot = find("lines");
  let weight = data.start, chosen = data.examples[0], lines = [], cursor = null;

  const order = (w) => {
    const { first, second } = chosen;
    const y = first.map((a, place) => w * a + (1 - w) * second[place]);
    // The items stand by their index and sorting is stable: ties go to the lower one.
    const places = y.map((_, place) => place).sort((a, b) => y[a] - y[b]);
    return { y, listed: places.slice(0, chosen.k) };
  };

  const drawn = (name, attributes) => {
    const element = document.createElementNS(plot.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const element = (name, kind, text) => {
    const made = document.createElement(name);
    made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // How far each item is behind the nearest, at every place of the slider; the first is on top.
  const drawLines = () => {
    const { first, k } = chosen;
    const places = Array.from({ length: data.steps + 1 }, (_, step) => step / data.steps);
    const behind = places.map((w) => {
      const { y } = order(w);
      const nearest = Math.min(...y);
      return y.map((value) => value - nearest);
    });
    const last = behind.map((row) => [...row].sort((a, b) => a - b)[k - 1]);
    const scale = 84 / (Math.max(...last) || 1);
    lines = first.map((_, item) => drawn("polyline", {
      class: "beam",
      points: places.map((w, at) =>
        `${100 * w},${(4 + scale * behind[at][item]).toFixed(2)}`).join(" "),
    }));
    cursor = drawn("line", { y1: 0, y2: 100, class: "cursor" });
    plot.replaceChildren(...lines, cursor);
  };

  const bar = (parts, most) => {
    const svg = drawn("svg", {
      viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "parts", "aria-hidden": "true",
    });
    let x = 0;
    parts.forEach((part, place) => {
      const width = most > 0 ? (100 * part) / most : 0;
      svg.append(drawn("rect", { x, y: 1, width, height: 8, class: `bar c${place}` }));
      x += width;
    });
    return svg;
  };

  const rank = () => {
    const { y, listed } = order(weight), before = order(data.start).listed;
    const most = Math.max(...listed.map((place) => y[place]));
    ranking.replaceChildren(...listed.map((place, at) => {
      const [id, title] = data.items[chosen.items[place]];
      const row = element("li", "");
      row.dataset.item = id;
      const was = before.indexOf(place), moved = was < 0 ? "new" : was - at;
      const words = moved === "new" ? "new" : moved > 0 ? `▲ ${moved}` : moved < 0 ? `▼ ${-moved}` : "";
      const distance = element("span", "sum", y[place].toFixed(4));
      distance.title = "distance";
      row.append(
        element("span", "name", title ?? String(id)), element("span", "moved", words),
        bar([weight * chosen.first[place], (1 - weight) * chosen.second[place]], most), distance);
      return row;
    }));
    const members = new Set(listed);
    lines.forEach((line, place) => line.classList.toggle("listed", members.has(place)));
    cursor.setAttribute("x1", 100 * weight);
    cursor.setAttribute("x2", 100 * weight);
    const exact = Number(weight.toFixed(4));
    find("shown-weight").textContent = weight.toFixed(2);
    slider.setAttribute("aria-valuetext", `${data.symbol} = ${exact}`);
    const kept = listed.filter((place) => before.includes(place)).length;
    find("said").textContent = weight === data.start
      ? `${data.symbol} = ${exact}, ${data.began}.`
      : `${data.symbol} = ${exact}: ${kept} of these ${listed.length} are in the list ${data.began}, too.`;
  };

  slider.addEventListener("input", () => { weight = slider.valueAsNumber / data.steps; rank(); });
  find("reset").addEventListener("click", () => {
    weight = data.start;
    slider.value = Math.round(weight * data.steps);
    rank();
  });
  example.addEventListener("change", () => {
    chosen = data.examples[example.selectedIndex];
    find("end-1").textContent = chosen.ends[0];
    find("end-0").textContent = chosen.ends[1];
    drawLines();
    rank();
  });
  example.selectedIndex = 0;
  slider.value = Math.round(weight * data.steps);
  drawLines();
  rank();
})();
