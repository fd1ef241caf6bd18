// What is in the form, kept in this browser from the first letter on, and the name that it has as a report.

const KEY = "outbox-example-draft";
const LONGEST_SIDE = 1280;

const empty = () => ({ id: crypto.randomUUID(), what: "", where: "" });

export let draft = read();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? empty();
  } catch {
    return empty();
  }
}

/**
 * Keep a change. What was changed is another report: only an unchanged one that is saved twice, because the tab went in between,
 * keeps its name, and is one report.
 */
export function change(values) {
  if (Object.entries(values).every(([name, value]) => draft[name] === value)) return;
  draft = { ...draft, ...values, id: crypto.randomUUID() };
  localStorage.setItem(KEY, JSON.stringify(draft));
}

export function clear() {
  draft = empty();
  localStorage.removeItem(KEY);
}

/** A photo as small as a report needs it, as a `data:` URL. */
export async function scaled(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.8);
}
