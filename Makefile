# make demo: environment, synthetic archives, data.py, train.py, predict.py, macro-F1.    make test: lint and tests.
# make bench: speed, on made photographs or, with DATA=FOLDER, on both archives and originals/ of a folder.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
DEMO = demo
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test bench env clean

env: $(VENV)/.installed

# requirements.txt states what may be installed, constraints.txt what was tested
ifdef UV
MAKE_VENV = uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
INSTALL = uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -r
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r
endif

$(VENV)/.installed: requirements.txt constraints.txt
	$(MAKE_VENV)
	$(INSTALL) requirements.txt
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	$(INSTALL) requirements-test.txt
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

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --dist loadfile  # a process for each core, with one thread

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks $(if $(DATA),--data $(DATA))

clean:
	rm -rf $(VENV) $(DEMO)
