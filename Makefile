# SPDX-License-Identifier: Apache-2.0
# All targets create the virtual environment first; choose its interpreter with PYTHON=python3.12.

PYTHON ?= python3
VENV ?= .venv

# The ROS wheels set this variable for their own interpreter; others must not inherit it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: demo test lint docs weights environment clean

demo: environment
	$(VENV)/bin/rock_seg demo

test: environment
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(VENV)/bin/python -m pytest --numprocesses 3 --dist worksteal

lint: environment
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# Builds the documentation in site/: generates the pages that come from the code, and checks links.
docs: environment $(VENV)-docs/made
	$(VENV)/bin/python docs/generate.py
	$(VENV)-docs/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs site

$(VENV)-docs/made: environment/lock/docs.txt
	$(PYTHON) -m venv --clear $(VENV)-docs
	$(VENV)-docs/bin/pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all: -r $<
	touch $@

# Trains the embedded weights on the data in config/training/NAME.yaml. On two CPU cores, `light`
# takes 1.5 hours and `resnet50` far longer. An interrupted training is resumed.
weights: light.weights resnet50.weights

%.weights: environment
	[ -d runs/scenes ] || $(VENV)/bin/python -m training.synthesize -o runs/scenes --count 500 --seed 12 --per-scene 2
	[ -d runs/no_rock ] || $(VENV)/bin/python -m training.collect -o runs/no_rock
	$(VENV)/bin/python -m training.train --config config/training/$*.yaml \
	  $(if $(wildcard runs/$*/checkpoints/last.ckpt),--resume)
	$(VENV)/bin/python -m training.export --checkpoint runs/$*/checkpoints/last.ckpt --int8 --calibrate \
	  --measure -o rock_seg_ros/weights/$*.safetensors

environment:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' environment/create.sh

clean:
	rm -rf .venv .venv-docs site build install log demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
