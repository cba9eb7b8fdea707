# make demo | test | check | bench, each from a bare clone with python3 (>= 3.11) and make.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.ctxner-installed
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install demo test isa slow check audit format bench costs soak peers docs image image-cuda clean

help:
	@echo "make demo    the whole path on an invented world: a few minutes, offline; ends in an HTML report"
	@echo "make test    the tests (make slow: the long ones too)"
	@echo "make isa     the numeric tests under the kernels of other processors"
	@echo "make check   format, lint (security too), types"
	@echo "make audit   known vulnerabilities of the pinned packages; needs pypi.org"
	@echo "make docs    the site, into site/"
	@echo "make costs   what ctxner cost multiplies, measured on this machine into costs.yaml"
	@echo "make bench   benchmarks as JSON lines; ONLY=name for one (make peers first: Flair too)"
	@echo "make image   the image for clusters, for CPUs (make image-cuda: for GPUs); IMAGE=registry/name; needs Docker"
	@echo "make soak    a server at 80% of its capacity, under attack; MINUTES=30"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ctxner needs Python 3.11 or newer; found %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	@echo "installing some 200 packages (1 to 2 GB with PyTorch for CPUs; several more with its CUDA build)"
	$(BIN)/pip install --progress-bar on -c constraints.txt -e '.[test,dev,bench]'
	@touch $@

demo: install
	$(BIN)/ctxner demo

# Both halves run, whatever the first one says.
test: install
	@failed=0; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not ray and not slow and not gpu" || failed=1; \
	$(BIN)/python -m pytest -m "ray and not slow and not gpu" || failed=1; \
	exit $$failed

# The numeric tests under other kernels: of older processors, of other thread counts, and with rounding that differs at
# every call, as it does where kernels are chosen by the shape of a batch. ISA="NAME=VALUE ..." runs one such setting.
ISA ?=
isa: install
	@failed=0; \
	run() { printf '%-60s ' "$$*"; \
	  env "$$@" $(BIN)/python -m pytest -q -n 2 --dist loadfile -m "numeric and not ray and not slow and not gpu" > .isa.log 2>&1 \
	  && tail -1 .isa.log || { failed=1; grep -E "^(FAILED|ERROR)" .isa.log; tail -1 .isa.log; }; }; \
	if [ -n "$(ISA)" ]; then run $(ISA); else \
	  for threads in 1 2; do \
	    run OMP_NUM_THREADS=$$threads; \
	    run OMP_NUM_THREADS=$$threads MKL_CBWR=COMPATIBLE; \
	    run OMP_NUM_THREADS=$$threads ONEDNN_MAX_CPU_ISA=AVX2; \
	    run OMP_NUM_THREADS=$$threads ONEDNN_MAX_CPU_ISA=AVX512_CORE; \
	    run OMP_NUM_THREADS=$$threads CTXNER_TEST_NOISE=1; \
	  done; \
	fi; rm -f .isa.log; exit $$failed

slow: install
	$(BIN)/python -m pytest -m "not gpu"

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Not in CI: it asks pypi.org, which mirrors and machines without a network do not have.
audit: .venv-audit/.installed
	.venv-audit/bin/pip-audit -r constraints.txt --no-deps --disable-pip --progress-spinner off

.venv-audit/.installed:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install -q pip-audit
	@touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m tests.benchmarks.run $(ONLY)

# Measures what `ctxner cost --costs costs.yaml` multiplies, on this machine. PART=actors for one part.
costs: install
	$(BIN)/python -m tests.benchmarks.costs costs.yaml $(PART)

MINUTES ?= 30
soak: install
	$(BIN)/python -m tests.benchmarks.soak $(MINUTES)

# What benchmarks compare with and ctxner does not need, in an environment of its own.
peers: .venv-peers/.installed

.venv-peers/.installed: tests/benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install -qq -r tests/benchmarks/peers.txt
	@touch $@

# The site, from docs/ and docstrings, into site/: no network but for installing; a dead link fails.
docs: .venv-docs/.installed
	.venv-docs/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

.venv-docs/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install -q -c constraints.txt mkdocs-material 'mkdocstrings[python]'
	@touch $@

# The tag is Ray's version: all nodes of a cluster and who submits to it need the same one.
RAY := $(shell sed -n 's/^ray==//p' constraints.txt)
IMAGE ?= ctxner
STORAGE ?=
image: TARGET := cpu
image-cuda: TARGET := cuda
image image-cuda:
	@echo "building $(IMAGE):$(RAY)-$(TARGET) from cluster/Dockerfile"
	docker build -f cluster/Dockerfile --target $(TARGET) --build-arg STORAGE="$(STORAGE)" -t $(IMAGE):$(RAY)-$(TARGET) .

clean:
	rm -rf .venv .venv-peers .venv-docs .venv-audit site build *.egg-info .pytest_cache .mypy_cache .ruff_cache runs
