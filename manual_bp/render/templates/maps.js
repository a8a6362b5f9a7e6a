// Heatmaps: the numbers of the cell under the pointer or the keyboard, and the choice of the plane.
(() => {
  "use strict";
  const numbers = JSON.parse(document.getElementById("numbers").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

  const place = (rect, row, col) => {
    rect.setAttribute("x", col);
    rect.setAttribute("y", row);
  };
  const usedText = (used) => {
    if (typeof used !== "number") return used;
    if (used > 1) return `${used}×`;
    return used === 0 ? "0 %" : used < 0.01 ? "<1 %" : `${Math.floor(used * 100)} %`;
  };
  const element = (plane, row, col) => {
    const axes = plane.sizes.length;
    const spans = [row, col].slice(2 - axes).map((at, axis) => {
      const block = plane.block[2 - axes + axis];
      const end = Math.min((at + 1) * block, plane.sizes[axis]);
      return end - at * block <= 1 ? String(at * block) : `${at * block}:${end}`;
    });
    const parts = [...plane.index, ...spans];
    return parts.length ? `[${parts.join(", ")}]` : "the only element";
  };
  // The pictures hold nine digits; the verdict does not depend on them.
  const differenceText = (plane, cell) => {
    const difference = plane.difference ? plane.difference[cell] : 0;
    return difference === 0 && plane.used[cell] > 0 ? "≈ 0" : difference;
  };

  for (const group of document.querySelectorAll(".maps")) {
    const planes = numbers[group.dataset.numbers];
    const images = [...group.querySelectorAll("img")];
    const overlays = [...group.querySelectorAll("svg")];
    const readout = [...group.nextElementSibling.querySelectorAll("dd")];
    const initial = readout.map((cell) => cell.textContent);
    planes[0].src ??= images.map((image) => image.src);
    let plane = planes[0];
    let at = null;

    const cursors = overlays.map((overlay) => ["cursor-halo", "cursor"].map((name) => {
      const rect = document.createElementNS(SVG, "rect");
      rect.setAttribute("class", name);
      rect.setAttribute("width", 1);
      rect.setAttribute("height", 1);
      rect.setAttribute("visibility", "hidden");
      overlay.append(rect);
      return rect;
    }));
    const worst = () => [Math.floor(plane.worst / plane.cols), plane.worst % plane.cols];

    const show = (row, col) => {
      at = [row, col];
      const cell = row * plane.cols + col;
      const texts = [
        element(plane, row, col),
        plane.candidate[cell],
        (plane.reference ?? plane.candidate)[cell],
        differenceText(plane, cell),
        usedText(plane.used[cell]),
      ];
      readout.forEach((target, number) => (target.textContent = texts[number]));
      for (const rect of cursors.flat()) {
        place(rect, row, col);
        rect.setAttribute("visibility", "visible");
      }
    };
    const leave = () => {
      at = null;
      cursors.flat().forEach((rect) => rect.setAttribute("visibility", "hidden"));
      if (plane === planes[0]) readout.forEach((target, number) => (target.textContent = initial[number]));
      else show(...worst());
    };
    const choose = (number) => {
      plane = planes[number];
      images.forEach((image, map) => {
        image.src = plane.src[map];
        image.width = plane.width;
        image.height = plane.height;
      });
      for (const overlay of overlays) {
        overlay.setAttribute("viewBox", `0 0 ${plane.cols} ${plane.rows}`);
        overlay.querySelectorAll(".worst, .worst-halo").forEach((rect) => place(rect, ...worst()));
      }
      leave();
    };

    const point = (event) => {
      const image = event.target.closest(".frame")?.querySelector("img");
      if (!image) return;
      const box = image.getBoundingClientRect();
      const clamp = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
      show(clamp((event.clientY - box.top) / box.height, plane.rows), clamp((event.clientX - box.left) / box.width, plane.cols));
    };
    group.addEventListener("pointermove", point);
    group.addEventListener("pointerdown", point);
    group.addEventListener("pointerleave", leave);
    group.addEventListener("focus", () => at ?? show(...worst()));
    group.addEventListener("blur", leave);
    group.addEventListener("keydown", (event) => {
      const step = KEYS[event.key];
      if (!step && event.key !== "Home") return;
      event.preventDefault();
      if (event.key === "Home") return show(...worst());
      const [row, col] = at ?? worst();
      show(Math.min(Math.max(row + step[0], 0), plane.rows - 1), Math.min(Math.max(col + step[1], 0), plane.cols - 1));
    });

    const select = group.closest(".pictures")?.querySelector('[name="plane"]');
    select?.addEventListener("change", () => {
      choose(Number(select.value));
      const title = group.closest(".pictures").querySelector(".plane");
      title.textContent = select.selectedOptions[0].textContent;
    });
  }
})();
