# make demo: environment, synthetic archives, data.py, train.py, predict.py, macro-F1.    make test: lint and tests.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
DEMO = demo
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test env clean

env: $(VENV)/.installed

# requirements.txt states what may be installed, constraints.txt what was tested
$(VENV)/.installed: requirements.txt requirements-test.txt constraints.txt
ifdef UV
	uv venv --quiet --allow-existing --python $(PYTHON) $(VENV)
	uv pip install --quiet --python $(BIN)/python -r requirements-test.txt -c constraints.txt
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-test.txt -c constraints.txt
endif
	touch $@

demo: env
	rm -rf $(DEMO)
	$(BIN)/python -m dr.demo make $(DEMO)
	$(BIN)/python data.py -m $(DEMO)/diabetic-retinopathy-classification-f1-score-4.zip \
	    -a $(DEMO)/train_image_resized.zip -d $(DEMO)/data --per_class 100 --val_fraction 0.3 --size 256
	$(BIN)/python train.py -r lite0 -b 16 -e 4 -d $(DEMO)/data -s $(DEMO)/weights -n demo
	unzip -q $(DEMO)/diabetic-retinopathy-classification-f1-score-4.zip 'kaggle_retina/test/*' -d $(DEMO)
	$(BIN)/python predict.py -m $(DEMO)/weights/demo__best.pt -i $(DEMO)/kaggle_retina/test -o $(DEMO)/results
	$(BIN)/python -m dr.demo score --truth $(DEMO)/test_truth.csv --result $(DEMO)/results/result.csv

test: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q

clean:
	rm -rf $(VENV) $(DEMO)
