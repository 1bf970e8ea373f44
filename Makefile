# make demo: environment, synthetic archives, data.py, train.py, predict.py, macro-F1.    make docs: write docs/cli.md.
# make test: lint and all tests but the slow ones.    make test-all: lint and all tests, as .ci/run.
# make bench: speed, on synthetic images or, with DATA=FOLDER, on both archives and originals/ of a folder.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
DEMO = demo
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo lint test test-all bench docs env env-test clean

env: $(VENV)/.installed
env-test: $(VENV)/.installed-test

# requirements.txt has the allowed versions, constraints.txt the tested ones
ENV_FILES = requirements.txt requirements/openvino.txt requirements/export.txt requirements/excel.txt
TEST_FILES = requirements/test.txt requirements/log.txt requirements/labels.txt requirements/dicom.txt requirements/heic.txt
ifdef UV
MAKE_VENV = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL = uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
endif

$(VENV)/.installed: $(ENV_FILES) constraints.txt
	$(MAKE_VENV)
	$(INSTALL) $(addprefix -r ,$(ENV_FILES))
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed $(TEST_FILES)
	$(INSTALL) $(addprefix -r ,$(ENV_FILES) $(TEST_FILES))
	touch $@

demo: env
	rm -rf $(DEMO)
	$(BIN)/python -m dr.synthetic.demo make $(DEMO)
	$(BIN)/python data.py -m $(DEMO)/diabetic-retinopathy-classification-f1-score-4.zip \
	    -a $(DEMO)/train_image_resized.zip -d $(DEMO)/data --per_class 100 --val_fraction 0.3 --size 256
	$(BIN)/python train.py -r lite0 -b 16 -e 4 -d $(DEMO)/data -s $(DEMO)/weights -n demo
	$(BIN)/python -m zipfile -e $(DEMO)/diabetic-retinopathy-classification-f1-score-4.zip $(DEMO)
	$(BIN)/python predict.py -m $(DEMO)/weights/demo__best.pt -i $(DEMO)/kaggle_retina/test -o $(DEMO)/results
	$(BIN)/python -m dr.synthetic.demo score --truth $(DEMO)/test_truth.csv --result $(DEMO)/results/result.csv

lint: env-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# one process for each core, each with one thread
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --dist loadfile

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

docs: env
	$(BIN)/python -m dr.cli docs/cli.md

bench: env-test
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) $(DEMO)
