# SPDX-License-Identifier: Apache-2.0
"""Grafana's dashboard asks for metrics that the server has, with labels and values that they have."""
import json
import os
import re
import unittest

from kit import Case, picture

DASHBOARD = os.path.join(os.environ["ATELIER_SOURCE"], "tools/grafana/atelier.json")


class Dashboard(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(DASHBOARD, encoding="utf-8") as f:
            cls.board = json.load(f)
        cls.server.wait(cls.server.submit(picture()).json()["prompt_id"])
        cls.kinds, cls.samples = {}, []
        for line in cls.server.get("/metrics").body.decode().splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                cls.kinds[name] = kind
            elif line[0] != "#":
                name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
                cls.samples.append((name, dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))))

    def known(self, name):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        return name in self.kinds or self.kinds.get(base) == "histogram"

    def test_every_metric_and_label_exists(self):
        exprs = [t["expr"] for p in self.board["panels"] for t in p.get("targets", [])]
        self.assertGreater(len(exprs), 30)
        asked = set()
        for expr in exprs:
            for name, labels in re.findall(r"\b((?:atelier|process)_\w+)(?:\{([^}]*)\})?", expr):
                asked.add(name)
                self.assertTrue(self.known(name), expr)
                matchers = dict(re.findall(r'(\w+)="([^"]*)"', labels or ""))
                if matchers:
                    self.assertTrue(any(n == name and all(have.get(k) == v for k, v in matchers.items()) for n, have in self.samples), expr)
            for label in re.findall(r"by \((\w+)\)", expr):
                if label not in ("instance", "le"):
                    self.assertTrue(any(label in have for _, have in self.samples), expr)
            if "_total" in expr:  # a counter means nothing as it stands
                self.assertRegex(expr, r"rate\(|increase\(")
        # And what the server counts is on the board.
        shown = {re.sub(r"_(bucket|sum|count)$", "", n) if n not in self.kinds else n for n in asked}
        self.assertEqual(sorted(set(self.kinds) - shown - {"atelier_jobs_accepted_total", "atelier_info"}), [])

    def test_panels_stand_beside_each_other(self):
        panels = self.board["panels"]
        self.assertEqual(len({p["id"] for p in panels}), len(panels))
        taken = set()
        for p in panels:
            g = p["gridPos"]
            self.assertLessEqual(g["x"] + g["w"], 24)
            cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
            self.assertFalse(cells & taken, p["title"])
            taken |= cells
        for p in panels:  # the source is chosen on the board, not written into it
            self.assertTrue(p["type"] == "row" or p["datasource"]["uid"] == "${source}")

    def test_the_text_format_is_well_formed(self):
        seen = set()
        for line in self.server.get("/metrics").body.decode().splitlines():
            if line[0] == "#":
                self.assertRegex(line, r"^# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))$")
            else:
                self.assertRegex(line, r'^[a-z_]+(\{([a-z_]+="[^"\n]*",?)+\})? [-+0-9.eE]+(inf|nan)?$')
                self.assertNotIn(line.rsplit(" ", 1)[0], seen)
                seen.add(line.rsplit(" ", 1)[0])


if __name__ == "__main__":
    unittest.main()
