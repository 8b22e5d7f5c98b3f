// What is wrong with a page for those who hear it, see little of it, or have large fingers: a list of findings.
() => {
  const LEAST = 48, CONTRAST = 4.5, LARGE_CONTRAST = 3;
  const faults = [];
  const dialog = document.querySelector("dialog[open]");
  const scope = dialog ?? document.body;
  const shown = (element) => element.checkVisibility() && !element.closest(".hidden") && (dialog || !element.closest("dialog"));
  const text = (element) => (element?.textContent ?? "").trim();

  const name = (element) => {
    const by = element.getAttribute("aria-labelledby");
    if (by) return by.split(" ").map((id) => text(document.getElementById(id))).join(" ");
    return element.getAttribute("aria-label") ?? (text(element.labels?.[0]) || text(element));
  };
  for (const element of scope.querySelectorAll("button, input, select, a, canvas, [role=application], [role=toolbar], dialog[open], ol")) {
    if (!shown(element)) continue;
    const label = `${element.tagName.toLowerCase()}#${element.id}.${element.className}`;
    if (!name(element)) faults.push(`${label} has no name`);
    if (element.matches("button, input, select, a")) {
      const box = element.getBoundingClientRect();
      if (box.width < LEAST || box.height < LEAST) faults.push(`${label} is ${box.width} x ${box.height}`);
    }
  }
  for (const image of scope.querySelectorAll("img")) if (!image.hasAttribute("alt")) faults.push("an image without alt");
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`id ${id} comes twice`);
  for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby]")) {
    for (const id of `${element.getAttribute("aria-labelledby") ?? ""} ${element.getAttribute("aria-describedby") ?? ""}`.split(" ")) {
      if (id && !document.getElementById(id)) faults.push(`nothing has id ${id}`);
    }
  }
  if (!document.documentElement.lang || !document.title) faults.push("the page lacks a language or a title");
  if (!document.querySelector("[role=status]")) faults.push("nothing tells changes");

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).slice(0, 3).map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const opaque = (colour) => channels(colour).length < 4 || channels(colour)[3] === 1;
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (opaque(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of scope.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (!own || !shown(element) || element.matches("option, :disabled")) continue;
    const style = getComputedStyle(element), [a, b] = [light(style.color), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? LARGE_CONTRAST : CONTRAST)) {
      faults.push(`"${text(element).slice(0, 30)}" has a contrast of ${ratio.toFixed(1)}`);
    }
  }
  return faults;
}
