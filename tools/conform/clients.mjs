// SPDX-License-Identifier: Apache-2.0
// clients.mjs - two client libraries of npm against a server: `node clients.mjs URL WORKFLOW NODE_MODULES`.
// Run by clients.py. Each runs the house workflow to its end and fetches the picture; the first also walks through
// the other routes that it knows, the second must be told of a workflow that is refused.
import { createRequire } from "module";
import { randomUUID } from "crypto";
import { readFileSync } from "fs";
import assert from "assert";

const [url, workflow, modules] = process.argv.slice(2);
const require = createRequire(modules + "/");
const house = JSON.parse(readFileSync(workflow));
const isPicture = async (at) => {
    const bytes = Buffer.from(await (await fetch(at)).arrayBuffer());
    return bytes.length > 1000 && bytes.subarray(1, 4).toString() === "PNG";
};

async function stableCanvas() {
    const { Client } = require("@stable-canvas/comfyui-client");
    const client = new Client({ api_host: url.replace("http://", ""), WebSocket: require("ws"), fetch });
    await client.connect();
    const steps = [];
    client.on("progress", (e) => steps.push(e.value));
    assert((await client.getSamplers()).includes("euler"));
    assert((await client.getVAEs()).includes("house_vae.safetensors"));
    assert((await client.getModels("vae")).some((m) => m.name === "house_vae.safetensors"));
    assert((await client.getSystemStats()).system.comfyui_version);
    const drawn = await client.enqueue(house, { workflow: {} });
    assert(await isPicture(drawn.images[0].data));
    assert.deepEqual(steps, Array.from({ length: 20 }, (_, i) => i + 1));
    const other = structuredClone(house);
    other["7"].inputs.seed = 7;
    assert(await isPicture((await client.enqueue_polling(other, { workflow: {} })).images[0].data));
    assert.deepEqual(await client.getQueue(), { Running: [], Pending: [] });
    assert.equal((await client.getHistory()).History.length, 2);
    await client.storeSetting("a.b", 3);
    assert.equal(await client.getSetting("a.b"), 3);
    await client.interrupt();
    await client.free({});
    await client.clearItems("history");
    assert.equal((await client.getHistory()).History.length, 0);
    client.close();
}

async function saintno() {
    const { ComfyApi, CallWrapper, PromptBuilder } = await import(modules + "/@saintno/comfyui-sdk/build/index.esm.js");
    const api = await new ComfyApi(url, randomUUID()).init().waitForReady();
    const builder = (graph) => new PromptBuilder(graph, ["seed"], ["images"])
        .setInputNode("seed", "7.inputs.seed").setOutputNode("images", "9");
    let steps = 0;
    const drawn = await new Promise((done, failed) => new CallWrapper(api, builder(house).input("seed", 99))
        .onProgress(() => steps++).onFinished(done).onFailed(failed).run());
    const at = api.getPathImage(drawn.images.images[0]);
    assert(await isPicture(at));
    assert.equal(steps, 20);
    const up = await api.uploadImage(Buffer.from(await (await fetch(at)).arrayBuffer()), "up.png");
    assert(await isPicture(up.url));
    const bad = structuredClone(house);
    bad["7"].inputs.steps = -5;
    const refused = await new Promise((done) => new CallWrapper(api, builder(bad))
        .onFinished(() => done(false)).onFailed(() => done(true)).run());
    assert(refused);
}

await stableCanvas();
console.log("@stable-canvas/comfyui-client: ok");
await saintno();
console.log("@saintno/comfyui-sdk: ok");
process.exit(0);
