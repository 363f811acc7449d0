# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium over its DevTools protocol, with the standard library alone."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import types
import urllib.request

from kit import PATIENCE, Socket

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, width=1280, height=900, dark=False):
        self.dir = tempfile.mkdtemp(prefix="atelier-browser-")
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--remote-debugging-port=0", "--remote-allow-origins=*", "--user-data-dir=" + self.dir,
                 "--window-size=%d,%d" % (width, height)] + (["--force-dark-mode"] if dark else [])
        self.process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        end = time.monotonic() + 60
        file = os.path.join(self.dir, "DevToolsActivePort")
        self.port = None
        while not self.port:
            if time.monotonic() > end:
                raise RuntimeError("Chromium does not start")
            time.sleep(0.05)
            if os.path.exists(file):
                with open(file, encoding="utf-8") as f:
                    self.port = int((f.read().split() or [0])[0])
        with urllib.request.urlopen("http://127.0.0.1:%d/json" % self.port, timeout=30) as answer:
            page = next(p for p in json.load(answer) if p["type"] == "page")
        path = "/" + page["webSocketDebuggerUrl"].split("/", 3)[3]
        self.socket = Socket(types.SimpleNamespace(port=self.port), path=path)
        self.count, self.errors = 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        if dark:
            self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def _note(self, m):
        p = m.get("params", {})
        if m.get("method") == "Runtime.exceptionThrown":
            self.errors.append(p["exceptionDetails"].get("exception", {}).get("description") or p["exceptionDetails"]["text"])
        if m.get("method") == "Runtime.consoleAPICalled" and p["type"] == "error":
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in p["args"]))
        if m.get("method") == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.errors.append(p["entry"]["text"] + " " + p["entry"].get("url", ""))

    def call(self, method, **params):
        self.count += 1
        self.socket.send({"id": self.count, "method": method, "params": params})
        while True:
            m = self.socket.next(PATIENCE * 3)
            if m is None:
                raise RuntimeError("Chromium is gone")
            if m.get("id") == self.count:
                if "error" in m:
                    raise RuntimeError(m["error"])
                return m["result"]
            self._note(m)

    def open(self, url):
        self.call("Page.navigate", url=url)

    def run(self, script):
        got = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise AssertionError(got["exceptionDetails"]["exception"].get("description"))
        return got["result"].get("value")

    def until(self, script, seconds=PATIENCE):
        """Wait for an expression to be true; its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                value = self.run(script)
            except AssertionError:  # the page is not there yet
                value = None
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError("not true in %d s: %s; errors: %s" % (seconds, script, self.errors))

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        self.socket.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)
