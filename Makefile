# SPDX-License-Identifier: Apache-2.0
# make demo and make test set themselves up; PYTHON=python3.12 chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv

# Set by the ROS wheels for the interpreter that they started; ours must start anew.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: demo test lint weights environment clean

demo: environment
	$(VENV)/bin/rock_seg demo

test: environment
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST $(VENV)/bin/python -m pytest

lint: environment
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# The embedded weights, from the data that config/training/default.yaml names: hours on a CPU.
# Goes on where it was interrupted.
weights: environment
	[ -d runs/scenes ] || $(VENV)/bin/python -m training.synthesize -o runs/scenes --count 330 --val-fraction 0
	$(VENV)/bin/python -m training.train --config config/training/default.yaml \
	  $(if $(wildcard runs/default/checkpoints/last.ckpt),--resume)
	$(VENV)/bin/python -m training.export --checkpoint runs/default/checkpoints/last.ckpt --int8 --calibrate \
	  --measure -o rock_seg_ros/weights/default.safetensors
	$(VENV)/bin/python -m training.benchmark --config config/training/benchmark.yaml --run runs/default \
	  --report docs/weights.html

environment:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' environment/create.sh

clean:
	rm -rf .venv build install log demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
