# SPDX-License-Identifier: Apache-2.0
"""Nobody gets in: foreign pages, foreign names, paths that climb out, bodies without end."""
import hashlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import unittest
import urllib.parse
import urllib.request

from kit import BIN, Case, Server, Socket, picture

CLIMBS = ["../secret", "..%2Fsecret", "%2e%2e%2fsecret", "a/../../secret", "/etc/passwd", "%2Fetc%2Fpasswd",
          "....//secret", "..\\secret", "secret%00.png", "%252e%252e%252fsecret"]


class Security(Case):
    flags = ("--max-upload-size", "1")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.path.join(cls.dir, "secret"), "w") as f:
            f.write("the secret")

    def raw(self, data, timeout=10):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=timeout) as s:
            s.sendall(data)
            got = b""
            try:
                while True:
                    piece = s.recv(65536)
                    if not piece:
                        break
                    got += piece
            except (socket.timeout, ConnectionResetError):
                pass
        return got

    def test_pages_from_elsewhere(self):
        host = "127.0.0.1:%d" % self.server.port
        for origin, status in (("http://" + host, 200), ("http://127.0.0.1", 200), ("http://evil.example", 403),
                               ("http://127.0.0.1:1", 403), ("null", 403), ("http://localhost:%d" % self.server.port, 403)):
            answer = self.server.post("/prompt", {"prompt": picture()}, Origin=origin)
            self.assertEqual(answer.status, status, origin)
        for origin, status in (("http://evil.example", 403), ("http://" + host, 101)):
            s = Socket(self.server, headers=["Origin: " + origin])
            self.assertEqual(s.status, status)
            s.close()

    def test_names_that_are_not_ours(self):
        for host, status in (("localhost:%d" % self.server.port, 200), ("127.0.0.1", 200), ("[::1]:8188", 200),
                             ("rebound.example", 403), ("rebound.example:8188", 403), ("127.0.0.1.evil.example", 403)):
            self.assertEqual(self.server.get("/prompt", Host=host).status, status, host)

    def test_paths_that_climb(self):
        for climb in CLIMBS:
            for url in ("/view?type=output&filename=" + climb, "/view?filename=x.png&subfolder=" + climb,
                        "/userdata/" + climb, "/userdata?dir=" + climb, "/view_metadata/loras?filename=" + climb,
                        "/" + climb, "/api/userdata/workflows%2F" + climb):
                try:
                    answer = self.server.get(url)
                except http.client.RemoteDisconnected:
                    continue  # libwebsockets takes no NUL in a path
                self.assertNotIn(b"secret", answer.body.replace(climb.encode(), b""), url)
                self.assertGreaterEqual(answer.status, 300, url)
            answer = self.server.post("/userdata/%s" % urllib.parse.quote("../" + climb, safe=""), b"x")
            self.assertFalse(os.path.exists(self.path("user", "secret")), climb)
        with open(self.path("secret")) as f:
            self.assertEqual(f.read(), "the secret")

    def test_uploads_that_climb(self):
        for name, sub in (("../up.png", ""), ("/tmp/up.png", ""), ("up.png", "../.."), ("up.png", "/etc"), ("..", "")):
            body = ("--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"%s\"\r\n\r\nx\r\n"
                    "--b\r\nContent-Disposition: form-data; name=\"subfolder\"\r\n\r\n%s\r\n--b--\r\n" % (name, sub))
            answer = self.server.post("/upload/image", body.encode(), Content_Type="multipart/form-data; boundary=b")
            self.assertEqual(answer.status, 400, (name, sub))
        self.assertFalse(os.path.exists(self.path("up.png")))

    def test_what_a_browser_would_run_is_a_file(self):
        for name in ("x.html", "x.svg", "x.js"):
            with open(self.path("output", name), "w") as f:
                f.write("<script>alert(1)</script>")
            answer = self.server.get("/view?filename=" + name)
            self.assertEqual(answer.headers["content-type"], "application/octet-stream")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")

    def test_bodies_without_end(self):
        answer = self.raw(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n")
        self.assertIn(b" 413 ", answer.split(b"\r\n")[0])
        chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
        answer = self.raw(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17)
        self.assertTrue(answer == b"" or b" 413 " in answer.split(b"\r\n")[0], answer[:80])
        for bad in (b"zz\r\n", b"fffffffff\r\n"):
            answer = self.raw(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + bad)
            self.assertIn(b" 400 ", answer.split(b"\r\n")[0])
        self.assertEqual(self.server.get("/prompt").status, 200)

    def test_noise_does_not_stop_it(self):
        for noise in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /prompt HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                      b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
                      b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"):
            self.raw(noise, timeout=0.3)
            self.assertEqual(self.server.get("/prompt").status, 200, noise[:40])

    def test_deep_json(self):
        answer = self.server.post("/prompt", b"[" * 100000)
        self.assertEqual(answer.status, 500)
        self.assertEqual(self.server.get("/prompt").status, 200)

    def test_requests_behind_a_body(self):
        one = b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
        for path, body in ((b"queue", b"{}"), (b"settings/x", b"1"), (b"queue", b""), (b"none", b"x")):
            answer = self.raw(one % (path, len(body), body) * 5, timeout=0.5)
            self.assertEqual(self.server.get("/prompt").status, 200, path)  # it hung
            if body == b"{}":
                self.assertIn(b" 200 ", answer.split(b"\r\n")[0])
        answer = self.raw(b"GET /features HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3, timeout=0.5)
        self.assertEqual(answer.count(b"HTTP/1.1 200"), 3)

    def test_an_upgrade_that_nobody_knows(self):
        """Behind a first request, where the connection would stay: libwebsockets reads its name in what it has freed."""
        for name in ("foo", "websocke", "h3c, websocket"):
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=20) as s:
                answers = s.makefile("rb")
                s.sendall(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertIn(b" 200 ", answers.readline())
                while answers.readline() != b"\r\n":
                    pass
                s.sendall(b"GET /prompt HTTP/1.1\r\nHost: localhost\r\nUpgrade: %s\r\n\r\n" % name.encode())
                rest = answers.read()  # to the connection's end
                self.assertIn(b" 403 ", rest, name)
            self.assertEqual(self.server.get("/prompt").status, 200)
            self.assertIsNone(self.server.process.poll())

    def test_clients_that_vanish(self):
        for _ in range(50):
            s = Socket(self.server)
            s.close()
            with socket.create_connection(("127.0.0.1", self.server.port)) as c:
                c.sendall(b"POST /prompt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
            with socket.create_connection(("127.0.0.1", self.server.port)) as c:
                c.sendall(b"GET /object_info HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(self.server.get("/prompt").status, 200)


class Others(unittest.TestCase):
    def serve(self, *flags):
        folder = tempfile.mkdtemp(prefix="atelier-serve-")
        server = Server(folder, *flags)
        self.addCleanup(shutil.rmtree, folder, True)
        self.addCleanup(server.stop)
        return server

    def test_a_proxys_name_is_let_in_by_flag(self):
        server = self.serve("--allowed-host", "pictures.example")
        self.assertEqual(server.get("/prompt", Host="pictures.example").status, 200)
        self.assertEqual(server.get("/prompt", Host="other.example").status, 403)

    def test_tokens(self):
        folder = tempfile.mkdtemp(prefix="atelier-tokens-")
        self.addCleanup(shutil.rmtree, folder, True)
        tokens, file = {r: r + "-T0ken" for r in ("view", "submit", "admin")}, os.path.join(folder, "tokens")
        with open(file, "w") as f:
            f.write("# who\n\n" + "".join("%s %s-person %s\n" % (r, r, hashlib.sha256(t.encode()).hexdigest())
                                          for r, t in tokens.items()))
        server = self.serve("--token-file", file)
        bearer = lambda role: {"Authorization": "Bearer " + tokens[role]}
        for path in ("/prompt", "/", "/queue", "/view?filename=x.png", "/metrics", "/object_info", "/atelier/app.js"):
            answer = server.get(path)
            self.assertEqual((answer.status, answer.headers.get("www-authenticate")), (401, 'Bearer realm="atelier"'), path)
        self.assertEqual([server.get(path).status for path in ("/health", "/ready", "/api/health")], [200, 200, 200])
        self.assertEqual(server.get("/prompt", Authorization="Bearer wrong").status, 401)
        self.assertEqual(server.get("/prompt", Authorization="Basic " + tokens["view"]).status, 401)
        for role, prompt, free in (("view", 403, 403), ("submit", 200, 403), ("admin", 200, 200)):
            self.assertEqual(server.get("/prompt", **bearer(role)).status, 200)
            self.assertEqual(server.post("/prompt", {"prompt": picture()}, **bearer(role)).status, prompt)
            self.assertEqual(server.post("/free", {}, **bearer(role)).status, free)
            self.assertEqual(server.get("/internal/logs", **bearer(role)).status, free)
        # A browser: the token of the first address becomes a cookie.
        answer = server.get("/?token=" + tokens["view"])
        self.assertEqual((answer.status, answer.headers["location"]), (303, "/"))
        cookie = answer.headers["set-cookie"].split(";")[0]
        self.assertIn("HttpOnly; SameSite=Strict", answer.headers["set-cookie"])
        self.assertEqual(server.get("/", Cookie="a=b; " + cookie).status, 200)
        self.assertEqual(server.get("/?token=wrong").status, 401)
        self.assertEqual(server.get("/prompt?token=" + tokens["view"]).status, 401)
        for headers, status in (([], 401), (["Cookie: " + cookie], 101), (["Authorization: Bearer " + tokens["view"]], 101)):
            s = Socket(server, headers=headers)
            self.assertEqual(s.status, status)
            s.close()
        with open(os.path.join(folder, "w.json"), "w") as f:
            json.dump(picture(3), f)
        for token, code in ((tokens["submit"], 0), ("wrong", 4)):
            done = subprocess.run([BIN, "run", f.name, "--server", "127.0.0.1:%d" % server.port], capture_output=True,
                                  text=True, timeout=60, env=dict(os.environ, ATELIER_TOKEN=token))
            self.assertEqual(done.returncode, code, done.stderr)
        for bad in ("root x " + "0" * 64, "view x 123", "view " + "0" * 64, ""):
            with open(file, "w") as f:
                f.write(bad + "\n")
            with self.assertRaises(RuntimeError):
                self.serve("--token-file", file)

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl to make a certificate")
    def test_tls(self):
        folder = tempfile.mkdtemp(prefix="atelier-tls-")
        self.addCleanup(shutil.rmtree, folder, True)
        key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
        server = self.serve("--tls-keyfile", key, "--tls-certfile", cert)
        context = ssl.create_default_context(cafile=cert)
        with urllib.request.urlopen("https://127.0.0.1:%d/object_info" % server.port, context=context, timeout=20) as answer:
            self.assertIn("KSampler", json.load(answer))
        with self.assertRaises(OSError):
            server.get("/prompt")  # without TLS
        with self.assertRaises(RuntimeError):
            self.serve("--tls-keyfile", key)
        with self.assertRaises(RuntimeError):
            self.serve("--tls-keyfile", cert, "--tls-certfile", "/none.pem")

    def test_cors(self):
        server = self.serve("--enable-cors-header")
        answer = server.get("/prompt", Origin="http://elsewhere.example")
        self.assertEqual((answer.status, answer.headers["access-control-allow-origin"]), (200, "*"))
        self.assertEqual(server.request("OPTIONS", "/prompt").headers["access-control-allow-methods"],
                         "POST, GET, DELETE, PUT, OPTIONS")

    def test_users_apart(self):
        server = self.serve("--multi-user")
        self.assertEqual(server.get("/users").json(), {"storage": "server", "users": {}})
        ann, bob = (server.post("/users", {"username": name}).json() for name in ("ann", "b/../ob"))
        self.assertRegex(ann, r"^ann_[0-9a-f-]{36}$")
        self.assertRegex(bob, r"^b-ob_[0-9a-f-]{36}$")
        self.assertEqual(server.post("/users", {"username": "ann"}).json(), {"error": "Duplicate username."})
        self.assertEqual(server.post("/settings/x", b"1", comfy_user=ann).status, 200)
        self.assertEqual(server.get("/settings", comfy_user=ann).json(), {"x": 1})
        self.assertEqual(server.get("/settings", comfy_user=bob).json(), {})
        self.assertEqual(server.get("/settings", comfy_user="../" + ann).status, 401)
        self.assertEqual(server.get("/settings").status, 401)

    def test_a_frontend_from_a_folder(self):
        folder = tempfile.mkdtemp(prefix="atelier-front-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.makedirs(os.path.join(folder, "extensions", "core"))
        for name, text in (("index.html", "<p>hello"), ("extensions/core/a.js", "1"), ("b.css", "c")):
            with open(os.path.join(folder, name), "w") as f:
                f.write(text)
        server = self.serve("--front-end-root", folder)
        page = server.get("/")
        self.assertEqual((page.body, page.headers["content-type"], page.headers["cache-control"]),
                         (b"<p>hello", "text/html", "no-cache"))
        self.assertEqual(server.get("/extensions").json(), ["/extensions/core/a.js"])
        script = server.get("/extensions/core/a.js")
        self.assertEqual((script.body, script.headers["cache-control"]), (b"1", "no-cache"))
        self.assertEqual(server.get("/none.js").status, 404)


if __name__ == "__main__":
    unittest.main()
