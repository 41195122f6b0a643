// Numbers, times and members as people read them; and a few lines that make elements of them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const oneDigit = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (n) => whole.format(n);
export const some = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;
export const rate = (n) => (n >= 100 ? whole : oneDigit).format(n);
export const brief = (n) => (n < 10_000 ? whole : short).format(n);

export function percent(share) {
  const p = share * 100;
  return p === 0 || p >= 99.95 ? `${Math.round(p)} %` : p >= 0.1 ? `${p.toFixed(1)} %` : p >= 0.005 ? `${p.toFixed(2)} %` : "< 0.01 %";
}

export function bytes(n) {
  for (const unit of ["B", "KB", "MB"]) {
    if (n < 1000) return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} GB`;
}

// lasted is a duration in milliseconds, by its largest unit.
export function lasted(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172_800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} days`;
}

export const ago = (ms) => (ms < 1000 ? "just now" : `${lasted(ms)} ago`);

// hue gives each member a colour of its own, the one that it has on the chat's page: ids that end in a number are a golden angle apart.
export function hue(id) {
  const [, stem, number] = /^(.*?)(\d*)$/s.exec(id);
  let hash = 0;
  for (const char of stem) hash = (hash * 31 + char.codePointAt(0)) % 360;
  return ((40 + hash + Number(number) * 137.508) % 360).toFixed(1);
}

export function tint(node, id) {
  node.classList.add("hue");
  node.style.setProperty("--hue", hue(id));
  return node;
}

// el makes an element: el("p", {class: "x"}, "text", child, ...). Text is always text.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

export function svg(name, attributes = {}) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

// member names one in its colour; "" is nobody.
export function member(id) {
  return id === "" ? el("span", { class: "tag nobody" }, "nobody") : tint(el("bdi", { class: "tag" }, id), id);
}

// put sets a node's text, if it is another: what has not changed is not touched, so that it is neither painted nor read out again.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const byID = new Intl.Collator("en", { numeric: true }).compare;
