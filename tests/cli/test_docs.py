# SPDX-License-Identifier: Apache-2.0
"""The pages that are printed from tables say what the program says."""
import os
import re
import unittest

import kit

DOCS = os.path.join(kit.SOURCE, "docs")


class Docs(kit.Case):
    def page(self, name, *command):
        said = self.check(self.atelier(*command, "--markdown"), 0).out
        with open(os.path.join(DOCS, name), encoding="utf-8") as f:
            self.assertEqual(f.read(), said, "%s is stale: run `make docs`" % name)

    def test_nodes_page_is_fresh(self):
        self.page("nodes.md", "nodes")

    def test_models_page_is_fresh(self):
        self.page("models.md", "models")

    def test_readme_counts_the_nodes_that_are_here(self):
        line = self.check(self.atelier("nodes", "--missing"), 0).out.strip().splitlines()[-1]
        here, there, missing = re.match(r"(\d+) of the (\d+) nodes .* (\d+) are missing", line).groups()
        self.assertEqual(int(here) + int(missing), int(there))
        with open(os.path.join(kit.SOURCE, "README.md"), encoding="utf-8") as f:
            self.assertIn("%s of ComfyUI's %s" % (here, there), f.read())


if __name__ == "__main__":
    unittest.main()
