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

up: venv  ## start the whole mesh; ARGS='--for 20' passes arguments
	.venv/bin/xenmesh up $(ARGS)

# The tests run against the wheels, in an environment of their own: never against the tree.
build/test/tools: requirements/test.txt
	$(PYTHON) -m venv build/test
	build/test/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/test.txt
	@touch $@

build/test/rooms: build/test/tools $(SOURCES)
	rm -rf build/wheels
	PATH="$(CURDIR)/build/test/bin:$$PATH" build/test/bin/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w build/wheels $(addprefix ./,$(ROOMS))
	build/test/bin/pip install -q --disable-pip-version-check --no-deps --no-index --force-reinstall build/wheels/*.whl
	@touch $@

wheels: build/test/rooms  ## the wheels of all rooms, in build/wheels

check: build/test/rooms  ## formatting, lint, types, arrows between the rooms
	build/test/bin/ruff format --check -q .
	build/test/bin/ruff check -q .
	build/test/bin/mypy --no-error-summary $(foreach room,$(ROOMS),-p xenmesh.$(room))
	build/test/bin/lint-imports --no-cache --no-logo > build/arrows || { cat build/arrows; exit 1; }

test: check  ## every check and every test but those of the lab
	XENMESH_WHEELS=1 build/test/bin/pytest -q -n auto $(ARGS)
	$(MAKE) -s coverage

# The rooms that only compute are covered to the last branch, by their own tests.
coverage: build/test/rooms  ## branch coverage of the pure rooms, 100 %
	build/test/bin/coverage run -m pytest -q -p no:randomly $(PURE_TESTS)
	build/test/bin/coverage report --fail-under=100 --include='$(subst $(space),$(comma),$(strip $(PURE)))'

STORE      := model tree rounds walk budget redaction
PURE_TESTS := tests/schemas tests/xenstore tests/guest tests/bus/test_order.py tests/services/events/test_model.py \
              $(foreach file,$(STORE),tests/services/store/test_$(file).py)
PURE       := */xenmesh/schemas/* */xenmesh/xenstore/* */xenmesh/guest/* */bus/order.py */services/events/model.py \
              $(foreach file,$(STORE),*/services/store/$(file).py)
comma      := ,
space      := $(subst ,, )

explore: build/test/rooms  ## the property tests alone, with new examples each time
	XENMESH_EXPLORE=1 build/test/bin/pytest -q -n auto -m hypothesis --timeout 900 $(ARGS)

bench: build/test/rooms  ## what it costs, against floors of the same run; ONLY=store for a part
	build/test/bin/python -m bench --only '$(ONLY)' $(ARGS)

ONLY ?=

generate: dev  ## write everything that is generated
	build/dev/bin/python -m xenmesh.schemas.asyncapi --write schemas/xenmesh/schemas/generated
	build/dev/bin/xenmesh help --man > deploy/man/xenmesh.1
	build/dev/bin/xenmesh completion bash > deploy/completions/xenmesh
	build/dev/bin/xenmesh completion zsh > deploy/completions/_xenmesh
	build/dev/bin/xenmesh completion fish > deploy/completions/xenmesh.fish

lab:             ## a real Xen Dom0 under QEMU: built where that is due, and running
	@tests/lab/xenlab build
	@tests/lab/xenlab start

test-lab: build/test/rooms  ## the tests in the lab's Dom0; boots it, and stops it if it booted it
	XENMESH_RIGS=required XENMESH_WHEELS=build/wheels build/test/bin/pytest -q -n 0 -m lab tests/lab $(ARGS)

.PHONY: help venv dev up wheels check test coverage explore bench generate lab test-lab
