# make test, make demo, make docs, make examples, make evidence, make bench, make gpu,
# make soak, make zoo: each sets up all it needs in .venv first.
# Another interpreter: make PYTHON=python3.12 test
# Other extras of pyproject.toml: make EXTRAS=dev,cuda13 test
# Without a network, from a folder of wheels: make WHEELS=folder test

EXTRAS ?= dev
VENV ?= .venv
# An environment keeps its interpreter unless another is named.
PYTHON ?= $(or $(wildcard $(VENV)/bin/python),python3)
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install

# Name the interpreter, and also the extras, so that others make another environment.
id = $(shell $(PYTHON) -c "import sys, zlib; print(zlib.crc32(repr((sys.base_prefix, sys.version, '$(1)')).encode()))" 2>/dev/null)
BASE := $(VENV)/base-$(call id,)
READY := $(VENV)/ready-$(call id,$(EXTRAS))
OTHERS := $(filter-out $(READY),$(wildcard $(VENV)/ready-*))

ifdef WHEELS
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := $(abspath $(WHEELS))
endif

.PHONY: venv test lint docs demo examples evidence bench gpu soak zoo

venv: $(READY)

test: lint
	$(RUN) -m pytest

lint: $(READY)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy

# Fails on a broken reference.
docs: $(READY)
	$(RUN) -m sphinx -n -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# It needs none of the developers' tools.
demo: $(BASE)
	$(RUN) examples/demo.py

EXPERIMENTS := $(filter-out %/demo.py %/experiment.py %/train_mnist.py $(wildcard examples/evidence*.py), $(wildcard examples/*.py))

examples: $(READY)
	set -e; for script in $(EXPERIMENTS); do echo "$$script"; $(RUN) $$script; done

# Takes hours and goes on where it was stopped; some minutes: make EVIDENCE=--short evidence
EVIDENCE :=

evidence: $(READY)
	OMP_NUM_THREADS=1 $(RUN) examples/evidence.py $(EVIDENCE)

bench: $(READY)
	$(RUN) benchmarks/run.py

# What a GPU computes right, how fast, and beside PyTorch if that is installed; nine
# minutes at most. With CuPy 13 and cuDNN 8: make CUDA=cuda12 gpu
CUDA := cuda13

gpu:
	$(MAKE) --no-print-directory EXTRAS=dev,$(CUDA) venv
	$(RUN) benchmarks/gpu.py

# Disturbs training runs for an hour: make MINUTES=5 soak
MINUTES := 60

soak: $(READY)
	$(RUN) tests/soak.py --minutes $(MINUTES)

# Tries some 220 networks of chainercv2 for hours, and goes on where it was stopped.
zoo: $(BASE)
	$(PIP) --quiet --editable ".[zoo]"
	$(RUN) tests/zoo/run.py

# Nobody needs to wait for it later.
COMPILE = $(RUN) -m chainer_revive compile chainer_mmix.mixing.loops

# Chainer and ChainerCV build only beside an old setuptools, and only with the
# compiler switched off (pyproject.toml says why).
$(BASE): pyproject.toml setup.py chainer_revive.pth
	@command -v $(PYTHON) >/dev/null \
	  || { echo "There is no $(PYTHON): choose a Python 3.10 to 3.13 with make PYTHON=/path/to/python"; exit 1; } >&2
	@$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))" \
	  || { echo "chainer-mmix needs Python 3.10 to 3.13 and $(PYTHON) is $$($(PYTHON) -V 2>&1): choose another with make PYTHON=python3.13"; exit 1; } >&2
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	  || { echo "$(PYTHON) has no venv or ensurepip: install them (python3-venv on Debian and Ubuntu) or choose another with make PYTHON=python3.13"; exit 1; } >&2
	$(BASICS)

define BASICS
@echo "Installing Chainer and what it needs into $(VENV): some minutes"
@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
$(PIP) "setuptools<81" wheel numpy
CC=true LDSHARED=true $(PIP) --no-build-isolation chainer==7.8.1 chainercv==0.13.1
$(PIP) --editable ".[fast]"
$(PIP) --upgrade setuptools
$(COMPILE)
@touch $(BASE)
endef

# Other extras may not go together with those that are there.
$(READY): $(BASE)
	$(if $(OTHERS),$(BASICS))
	@echo "Installing the extras $(EXTRAS) into $(VENV)"
	$(PIP) --editable ".[$(EXTRAS)]"
	$(COMPILE)
	@touch $@
