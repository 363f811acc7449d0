# SPDX-License-Identifier: Apache-2.0
"""Optional third source: modules of a ComfyUI checkout that the user has (0.3.64 was used)."""
import sys


def enable(folder):
    """Make `import comfy` work on the CPU. Returns ComfyUI's version."""
    sys.path.insert(0, folder)
    argv, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options
    comfy.options.enable_args_parsing()
    import comfy.cli_args  # noqa: F401  (reads sys.argv)
    import comfy.model_management  # noqa: F401
    sys.argv = argv
    import comfyui_version
    return comfyui_version.__version__
