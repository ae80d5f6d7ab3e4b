# SPDX-License-Identifier: Apache-2.0
# make demo and make test set themselves up; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv

# Set by the ROS wheels for the interpreter that they started; ours must start anew.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: demo test lint docs weights environment clean

demo: environment
	$(VENV)/bin/rock_seg demo

test: environment
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(VENV)/bin/python -m pytest

lint: environment
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# The documentation, in site/: the pages that repeat the code are written again, and links are checked.
docs: environment $(VENV)-docs/made
	$(VENV)/bin/python docs/generate.py
	$(VENV)-docs/bin/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going docs site

$(VENV)-docs/made: environment/lock/docs.txt
	$(PYTHON) -m venv --clear $(VENV)-docs
	$(VENV)-docs/bin/pip install --disable-pip-version-check --quiet --require-hashes --only-binary :all: -r $<
	touch $@

# The embedded weights, from the data that config/training/NAME.yaml names; on two CPU cores `light`
# takes an hour and a half, `resnet50` many. Each goes on where it was interrupted.
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
