// SPDX-License-Identifier: Apache-2.0
// gallery.js - finished pictures, newest first, each with its workflow.
import * as api from "./api.js";
import { $, make, redraw } from "./dom.js";
import { about } from "./workflow.js";

const PAGE = 40; // jobs at a time
let most = PAGE;

const pictures = (entry) => Object.values(entry.outputs).flatMap((o) => o.images ?? [])
  .map((file) => ({ file, id: entry.prompt[1], prompt: entry.prompt[2] }));

// onopen(picture) with its file, its job's id and its workflow.
export async function drawGallery(onopen) {
  const entries = Object.values(await api.history(most + 1)).reverse();
  const all = entries.slice(0, most).flatMap(pictures);
  redraw($("gallery"), ...all.map((picture) => {
    const { text } = about(picture.prompt), src = api.viewUrl(picture.file, true);
    return make("li", {}, make("button", { type: "button", title: text, "data-key": src, onclick: () => onopen(picture) },
      make("img", { src, alt: text, loading: "lazy", decoding: "async" })));
  }));
  $("older").hidden = entries.length <= most;
  return all;
}

export function older(onopen) {
  most += PAGE;
  return drawGallery(onopen);
}
