# Everything a newcomer needs. `make demo` and `make test` set up what they use; `make test` wants a C++ compiler besides.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMMA := ,
# Test workers share the processors, so each runs its matrix products on one.
ONE_THREAD := OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
# Every test worker, and every command that a test starts, would compile all that it imports again where bytecode is not kept.
export PYTHONDONTWRITEBYTECODE :=

# uv installs in a quarter of pip's time. Where it finds no packages, as when pip's settings alone name an index, pip does.
install_into = $(1)/python -m pip install -q --disable-pip-version-check uv 2>/dev/null && \
	UV_HTTP_TIMEOUT=10 $(1)/uv pip install -q --python $(1)/python $(2) 2>/dev/null || \
	$(1)/python -m pip install -q --disable-pip-version-check --no-compile $(2)
install = $(call install_into,$(BIN),$(1))

LINT := $(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .
TYPES := $(BIN)/mypy --no-error-summary

FUZZ_SECONDS ?= 3600
MUTANTS ?=
# Kernels into whose text faults are written: all of them, where a run of the tests has some.
FAULTY := $(addprefix tests/backends/cuda/tactics/test_,product_sm90.py large_product.py attention_sm90.py attention_warpgroups.py)

# What `make floors` runs: everything that the direct dependencies bear on.
CORE_SUITES := tests/engine_format tests/ir tests/ops tests/onnx_import tests/passes tests/planning tests/runtime tests/cli \
	tests/backends/cpu tests/faults tests/test_python_api.py

.DEFAULT_GOAL := help
.PHONY: help apps demo demo-llm test quick check fix models conformance fuzz floors bench bench-compare bench-gpu bench-load bench-peers gpu-sanitize gpu-test mutants parsers-test ray-test report-test serve-test servers-test torch-test wild zoo clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed 's/:.*  ## /\t/' | expand -t 14

demo: $(VENV)/.core  ## Build the digits network into a plan, run it on held-out images, check its accuracy
	@$(BIN)/python -m sample_models.demo

demo-llm: $(VENV)/.core  ## Build a tiny Llama with caches of keys and values, write tokens on the CPU and on a GPU
	@$(BIN)/python -m sample_models.demo_llm

# The types take one processor for a while. Another reads the tests meanwhile, and leaves what that computes (bytecode, the ONNX
# suite's cases) for the workers, each of which reads all of them again. Wrong types end the tests.
test: $(VENV)/.dev  ## Lint, types, and every test that needs no GPU
	@$(LINT)
	@$(TYPES) & types=$$!; \
	    $(ONE_THREAD) $(BIN)/python -m pytest -q --collect-only >/dev/null 2>&1; \
	    $(ONE_THREAD) $(BIN)/python -m pytest -q -n auto --dist worksteal & tests=$$!; \
	    wait $$types || { kill $$tests; wait $$tests; echo "the types are wrong: see above"; exit 1; }; \
	    wait $$tests

quick: $(VENV)/.dev  ## The tests that a change most often breaks (tests/quick.txt), in under a minute
	$(ONE_THREAD) $(BIN)/python -m pytest -q -n auto --dist worksteal $$(grep -E '^[a-z]' tests/quick.txt | sed 's|^|tests/|')

check: $(VENV)/.dev  ## Lint and type checks only
	@$(LINT)
	@$(TYPES)

fix: $(VENV)/.dev  ## Format, and mend what the linter can mend
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

models: $(VENV)/.core  ## Generate the big sample models into sample_models/generated/
	$(BIN)/python -m sample_models all -o sample_models/generated

conformance: $(VENV)/.dev  ## The ONNX backend suite through build, file, read and run, and all of it on the emulated device
	$(ONE_THREAD) MINIINFER_EXPANDED=1 $(BIN)/python -m pytest -q -n auto --dist worksteal tests/conformance \
	    tests/backends/cuda/test_conformance.py

apps: $(VENV)/.apps/.done  ## Programs of PyPI's that carry their models, unchanged, over onnxruntime and over miniinfer
	PYTHONPATH=$(CURDIR) $(VENV)/.apps/bin/python -m tests.apps

fuzz: $(VENV)/.dev  ## Broken plans, models and flags, odd graphs, failing calls, a stormed Batcher; FUZZ_SECONDS (an hour) of random cases
	$(ONE_THREAD) MINIINFER_FUZZ_SCALE=10 MINIINFER_CONTRIBUTED_CASES=200 $(BIN)/python -m pytest -q -n auto tests/fuzz tests/faults \
	    tests/serving/test_stress.py tests/onnx_import/contributed
	$(ONE_THREAD) $(BIN)/python -m tests.fuzz.semantic --kind models plans device cli inputs --count 1000000 --seconds $(FUZZ_SECONDS) \
	    --report build/fuzz.json --keep build/fuzz

mutants: $(VENV)/.dev  ## Take away and spoil every lowering, expression and pass: tests must fail; MUTANTS="--match pass/" for some
	$(ONE_THREAD) MINIINFER_FAULTS=1 $(BIN)/python -m pytest -q -n auto $(FAULTY)
	$(ONE_THREAD) $(BIN)/python -m tests.mutants --workers $$(nproc) $(MUTANTS)

floors: $(VENV)/.floors/.done  ## The core suites with the lowest versions that pyproject.toml allows, on this Python
	$(ONE_THREAD) PYTHONPATH=$(CURDIR) $(VENV)/.floors/bin/python -m pytest -q -n auto --dist worksteal $(CORE_SUITES)

bench: $(VENV)/.dev  ## Speed beside ONNX Runtime in one process, on this machine's processors
	$(BIN)/python -m tests.benchmarks.cpu

bench-compare: $(VENV)/.dev  ## How often `miniinfer compare` errs: 100 A/A comparisons, 50 with 5 % of extra work; an hour of quiet processors
	$(BIN)/python -m tests.benchmarks.comparing

bench-gpu: $(VENV)/.gpu  ## Speed on a GPU beside PyTorch (which must be installed), and what the runtime costs
	$(BIN)/python -m tests.benchmarks.gpu
	$(BIN)/python -m tests.benchmarks.gpu_runtime
	$(BIN)/python -m tests.benchmarks.first_result
	$(BIN)/python -m tests.benchmarks.tuning --again

bench-load: $(VENV)/.dev  ## MLPerf's LoadGen judges what answers under load, in its four scenarios; the processors must be quiet
	$(BIN)/python -m tests.benchmarks.loadgen

bench-peers: $(VENV)/.gpu  ## Speed on a GPU beside PyTorch eager, captured, compiled, and ONNX Runtime (what is installed of them)
	$(BIN)/python -m tests.benchmarks.peers

gpu-sanitize: $(VENV)/.gpu  ## Our kernels under compute-sanitizer: memory errors, races, reads of what nobody wrote, barriers
	@failed=0; for tool in memcheck racecheck initcheck synccheck; do \
	    $(BIN)/python -m tests.gpu.sanitize --tool $$tool --workers $$(nproc) || failed=1; done; exit $$failed

gpu-test: $(VENV)/.gpu  ## The tests that need an NVIDIA GPU; with one present, a skip is a failure
	$(BIN)/python -m pytest -q tests/gpu

parsers-test: $(VENV)/.parsers  ## Polygraphy drives `miniinfer trtexec`, runs --miniinfer, and reduces a model by `miniinfer build`
	$(BIN)/python -m tests.parsers

ray-test: $(VENV)/.servers/.done  ## Ray Data and Ray Serve on a local Ray: each row once, a poisoned request, clients that go, Ray's own batching
	PYTHONPATH=$(CURDIR) $(VENV)/.servers/bin/python -m pytest -q -o filterwarnings=ignore tests/ray_cluster

servers-test: $(VENV)/.servers/.done  ## Plans in LitServe, KServe, FastAPI under gunicorn, and asyncio, as docs/ shows them
	PYTHONPATH=$(CURDIR) $(VENV)/.servers/bin/python -m pytest -q -o filterwarnings=ignore tests/other_servers

report-test: $(VENV)/.browser  ## Reports in a browser (chromium must be installed): no requests, no errors, sorting, 1 000 nodes
	$(BIN)/python -m tests.browser

serve-test: $(VENV)/.dev  ## 10 000 requests of 32 clients to `miniinfer serve`, cut connections, a plan replaced, a server that ends
	$(BIN)/python -m tests.server.storm

torch-test: $(VENV)/.torch/.done  ## torch.compile(backend="miniinfer") beside PyTorch: fourteen small networks, and each reason to run eagerly
	PYTHONPATH=$(CURDIR) $(VENV)/.torch/bin/python -m tests.torch_graphs

wild: $(VENV)/.wild/.done  ## Trained models that packages of PyPI carry: numbers and time beside ONNX Runtime (docs/wild.md)
	PYTHONPATH=$(CURDIR) $(VENV)/.wild/bin/python -W ignore -m tests.wild

zoo: $(VENV)/.dev  ## Networks of torchvision, timm and transformers (which must be installed) beside PyTorch
	$(BIN)/python -m tests.zoo

clean:  ## Remove the environment and everything generated
	rm -rf $(VENV) build *.egg-info sample_models/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@$(call install,-e .)
	@touch $@

$(VENV)/.gpu: pyproject.toml $(VENV)/.dev
	@$(call install,-e '.[cuda$(COMMA)dev]')
	@touch $@

# An environment of its own. uv can choose the lowest versions of what pyproject.toml names, and the newest of the rest.
$(VENV)/.floors/.done: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)/.floors
	$(VENV)/.floors/bin/python -m pip install -q --disable-pip-version-check uv
	$(VENV)/.floors/bin/uv pip install -q --python $(VENV)/.floors/bin/python --resolution lowest-direct -e '.[test]'
	@touch $@

# Programs that bring large packages of their own (silero-vad: torch), so an environment of its own.
$(VENV)/.apps/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)/.apps
	@$(call install_into,$(VENV)/.apps/bin,-e '.[apps]')
	@touch $@

# The packages without what they depend on, which for many is PyTorch or TensorFlow. No program of theirs runs to install them.
$(VENV)/.wild/.done: pyproject.toml tests/wild/packages.txt
	$(PYTHON) -m venv $(VENV)/.wild
	@$(call install_into,$(VENV)/.wild/bin,-e '.[wild]')
	@$(call install_into,$(VENV)/.wild/bin,--no-deps --only-binary :all: -r tests/wild/packages.txt)
	@touch $@

$(VENV)/.torch/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)/.torch
	@$(call install_into,$(VENV)/.torch/bin,-e '.[torch]' pytest)
	@touch $@

$(VENV)/.servers/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)/.servers
	@$(call install_into,$(VENV)/.servers/bin,-e '.[servers]')
	@touch $@

$(VENV)/.browser: pyproject.toml $(VENV)/.core
	@$(call install,-e '.[browser]')
	@touch $@

$(VENV)/.parsers: pyproject.toml $(VENV)/.core
	@$(call install,-e '.[parsers]')
	@touch $@

# Without .core first: what is there once is not resolved and built a second time. Bytecode is made of what is imported, not of all.
$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@$(call install,-e '.[dev]')
	@touch $(VENV)/.core
	@touch $@
