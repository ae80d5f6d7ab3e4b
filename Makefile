# SPDX-License-Identifier: Apache-2.0
# All targets create the virtual environment first; choose its interpreter with PYTHON=python3.12.

PYTHON ?= python3
VENV ?= .venv

# The ROS wheels set this variable for their own interpreter; others must not inherit it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: demo test lint docs weights light.weights resnet50.weights environment clean

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

# Trains the embedded weights on the data in config/training/*.yaml. `light` takes six hours on a CPU
# core; `resnet50` takes an hour and a half on two with AMX, and two hours and a half more on one. An
# interrupted training is resumed.
weights: light.weights resnet50.weights

PYTHON_OF_VENV = $(VENV)/bin/python
train_weights = $(PYTHON_OF_VENV) -m training.train $(if $(wildcard runs/$(1)/checkpoints/last.ckpt),--resume)
export_weights = $(PYTHON_OF_VENV) -m training.export --int8 --calibrate --measure --checkpoint runs/$(1)/checkpoints/last.ckpt

light.weights: runs/scenes runs/moon runs/boulders runs/navcam runs/no_rock
	$(call train_weights,light) --config config/training/light.yaml
	$(PYTHON_OF_VENV) -m training.export --no-check --checkpoint runs/light/checkpoints/step7500.ckpt --interpolate runs/light/checkpoints/step6000.ckpt 0.5 -o runs/light/mean.safetensors
	$(PYTHON_OF_VENV) -m training.export --no-check --checkpoint runs/light/checkpoints/step9000.ckpt --interpolate runs/light/mean.safetensors 0.5 -o runs/light/mean9000.safetensors
	$(call export_weights,light) --interpolate runs/light/mean9000.safetensors 0.5 -o rock_seg_ros/weights/light.safetensors

resnet50.weights: runs/scenes runs/no_rock
	$(call train_weights,resnet50) --config config/training/resnet50.yaml
	$(call train_weights,resnet50_rims) --config config/training/resnet50.yaml --config config/training/resnet50_rims.yaml
	$(PYTHON_OF_VENV) -m training.export --no-check --checkpoint runs/resnet50_rims/checkpoints/last.ckpt --interpolate runs/resnet50/checkpoints/last.ckpt 0.5 -o runs/resnet50_rims/mean.safetensors
	$(call train_weights,resnet50_whole) --config config/training/resnet50.yaml --config config/training/resnet50_whole.yaml
	$(call export_weights,resnet50_whole) --interpolate runs/resnet50_rims/mean.safetensors 0.5 -o rock_seg_ros/weights/resnet50.safetensors

runs/scenes: | environment
	$(PYTHON_OF_VENV) -m training.synthesize -o $@ --count 500 --seed 12 --per-scene 2

runs/moon: | environment
	$(PYTHON_OF_VENV) -m training.synthesize -o $@ --count 200 --seed 13 --kind moon --per-scene 1

runs/boulders: | environment
	$(PYTHON_OF_VENV) -m training.synthesize -o $@ --count 150 --seed 13 --kind boulder --per-scene 1

# The navigation-camera images in the layout of masks/: 255 is the robot and the sky.
runs/navcam:
	mkdir -p $@
	ln -sfn $(abspath ../shared/data/navcam_tamt/images) $@/images
	ln -sfn $(abspath ../shared/data/navcam_tamt/ai4mars) $@/masks

runs/no_rock: | environment
	$(PYTHON_OF_VENV) -m training.collect -o $@

environment:
	@PYTHON='$(PYTHON)' VENV='$(VENV)' environment/create.sh

clean:
	rm -rf .venv .venv-docs site build install log demo_out *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
