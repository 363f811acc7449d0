// SPDX-License-Identifier: Apache-2.0
// api.js - the server's routes as functions, and its socket, which comes back when it breaks.
// Easy to get wrong: a seed may have 20 digits, and a JavaScript number holds 15: long whole numbers are read as text,
// which the server takes where it wants a number.

export const clientId = sessionStorage.atelier ??= crypto.randomUUID?.() ?? Array.from(
  crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");

export const readJson = (text) =>
  JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\d{16,}(?![\d.eE])/g, (m) => (m[0] === '"' ? m : `"${m}"`)));

const roles = {
  401: "This server wants a token: open this address with /?token=YOUR-TOKEN behind it, once.",
  403: "Your token lets you look, but not do this.",
};
async function call(path, body, plain) {
  const answer = await fetch("/api" + path, body === undefined ? {} : { method: "POST", body: plain ? body : JSON.stringify(body) });
  const text = await answer.text();
  let value = null;
  try { value = text ? readJson(text) : null; } catch { /* not JSON: the status says it */ }
  if (!answer.ok) {
    const says = roles[answer.status] ?? value?.error?.message ?? value?.error;
    throw Object.assign(new Error(typeof says === "string" ? says : `the server answers ${answer.status}`), { value });
  }
  return value;
}

export const objectInfo = () => call("/object_info");
export const devices = () => call("/atelier/devices");
export const queue = (most) => call(`/queue?max_items=${most}`);
export const history = (most, offset = -1) => call(`/history?max_items=${most}&offset=${offset}`);
export const submit = (prompt) => call("/prompt", { prompt, client_id: clientId, extra_data: { preview_method: "auto" } });
export const interrupt = (id) => call("/interrupt", { prompt_id: id });
export const remove = (id) => call("/queue", { delete: [id] });
export const clear = () => call("/queue", { clear: true });
export const move = (id, before) => call(`/jobs/${encodeURIComponent(id)}/move`, { before });
export const convert = (text) => call("/atelier/convert", text, true);

export function upload(file) {
  const form = new FormData();
  form.set("image", file);
  return call("/upload/image", form, true);
}

export function viewUrl(file, preview) {
  const query = new URLSearchParams({ filename: file.filename, subfolder: file.subfolder ?? "", type: file.type ?? "output" });
  if (preview) [["preview", "webp;80"], ["side", 384]].forEach(([key, value]) => query.set(key, value));
  return "/api/view?" + query;
}

// on(type, data) for every message; type "preview" brings a Blob, "open" and "closed" the connection's state.
export function listen(on) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws?clientId=${clientId}`);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    socket.send(JSON.stringify({ type: "feature_flags", data: { supports_preview_metadata: true } }));
    on("open");
  };
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      on(message.type, message.data);
      return;
    }
    const view = new DataView(data);
    if (view.getUint32(0) !== 4) return;
    const n = view.getUint32(4);
    const meta = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 8, n)));
    on("preview", { ...meta, blob: new Blob([new Uint8Array(data, 8 + n)], { type: meta.image_type }) });
  };
  socket.onclose = () => {
    on("closed");
    setTimeout(() => listen(on), 1000);
  };
}
