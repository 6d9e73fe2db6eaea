# make up     a running mesh, on the simulated host where there is no Xen
# make test   every check
ROOMS   := schemas bus xenstore xen services guest sim cli
PYTHON  ?= python3
ARGS    ?=

EDITABLE := $(foreach room,$(ROOMS),-e ./$(room))
SOURCES  := $(foreach room,$(ROOMS),$(room)/pyproject.toml $(shell find $(room)/xenmesh -type f -not -name '*.pyc' 2>/dev/null))

.DEFAULT_GOAL := help

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

venv: .venv/ready  ## the environment alone, in .venv

.venv/ready: requirements/run.txt $(foreach room,$(ROOMS),$(room)/pyproject.toml)
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	@touch $@

dev: build/dev/ready  ## an editable environment with the test tools, in build/dev

build/dev/ready: requirements/test.txt $(foreach room,$(ROOMS),$(room)/pyproject.toml)
	$(PYTHON) -m venv build/dev
	build/dev/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/test.txt
	PATH="$(CURDIR)/build/dev/bin:$$PATH" build/dev/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(EDITABLE)
	@touch $@

.PHONY: help venv dev
