# SPDX-License-Identifier: Apache-2.0
# The front door. CMake and ninja do the work; see docs/ARCHITECTURE.md.
#   make demo   install what is missing, build, draw a picture, print its path
#   make test   the same set-up, then every test that this machine can run
#   make cuda   the CUDA plug-in, where nvcc is; make docs: the pages printed from tables
SHELL := /bin/bash
PRESET ?= release
BUILD := build/$(PRESET)
PROMPT ?= a big red house on the left and a small yellow star on the right, snowy hills at dusk

# Run a build step; show what it says only if it fails or warns.
quietly = out=$$($(1) 2>&1) || { printf '%s\n' "$$out"; exit 1; }; \
    printf '%s\n' "$$out" | grep -v 'no work to do' | grep . || true

.PHONY: all demo test setup build cuda vocabulary fmt lint docs dist clean help
all: build

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@tools/setup/install.sh

build: setup $(BUILD)/build.ninja vocabulary
	@$(call quietly,ninja -C $(BUILD) --quiet atelier)

# The CUDA plug-in, where nvcc is: a minute or two that the CPU's users do not wait for.
cuda: build
	@ninja -C $(BUILD) -t query at_cuda >/dev/null 2>&1 || { \
	    echo "cuda: no nvcc with the CUDA runtime here; install CUDA, remove $(BUILD) and try again"; exit 1; }
	@$(call quietly,ninja -C $(BUILD) --quiet at_cuda)
	@$(BUILD)/bin/atelier devices

$(BUILD)/build.ninja:
	@cmake --preset $(PRESET) >/dev/null

# CLIP's vocabulary for checkpoints that bring none: asked for once, the house model needs it not.
VOCABULARY := $(BUILD)/share/atelier/tokenizers
vocabulary:
	@[ -e $(VOCABULARY)/.asked ] || { mkdir -p $(VOCABULARY) && touch $(VOCABULARY)/.asked && \
	    tools/vocab/get_clip_vocab.sh $(VOCABULARY)/clip; }

demo: build
	@$(BUILD)/bin/atelier run examples/house.json --set prompt.text="$(PROMPT)"

test:
	@tools/setup/install.sh test
	@cmake --preset $(PRESET) >/dev/null
	@$(MAKE) --no-print-directory vocabulary
	@tools/setup/get_axe.sh build/share/axe.min.js
	@$(call quietly,ninja -C $(BUILD) --quiet)
	@tools/test/run.sh $(BUILD)

fmt:
	@git ls-files -co --exclude-standard 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]' | xargs -r clang-format -i

lint:
	@tools/setup/install.sh test
	@$(MAKE) --no-print-directory $(BUILD)/build.ninja
	@tools/lint/run.sh $(BUILD)

# The pages that are printed from tables; a test fails when they are stale.
docs: build
	@$(BUILD)/bin/atelier nodes --markdown > docs/nodes.md
	@$(BUILD)/bin/atelier models --markdown > docs/models.md

dist: build
	@tools/setup/install.sh dist
	@tools/dist/make_dist.sh $(BUILD)

clean:
	rm -rf build dist
