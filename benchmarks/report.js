// The legend of a section switches lines on and off in all of its charts.
for (const section of document.querySelectorAll("section")) {
  const boxes = [...section.querySelectorAll("[data-of]")];
  const show = (box) => {
    for (const line of section.querySelectorAll(`[data-arm="${CSS.escape(box.dataset.of)}"]`))
      line.classList.toggle("off", !box.checked);
  };
  for (const box of boxes) box.addEventListener("change", () => show(box));
  section.querySelector("[data-all]")?.addEventListener("click", () => {
    const on = boxes.some((box) => !box.checked);
    for (const box of boxes) { box.checked = on; show(box); }
  });
}
