#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the lock files with uv: pip install uv==0.13.9
#   --upgrade  updates the packages that the requirements do not pin; otherwise their versions stay
set -euo pipefail
export LC_ALL=C

cd "$(dirname "${BASH_SOURCE[0]}")"
requirements=(requirements.txt requirements-extras.txt requirements-training.txt requirements-test.txt)

lock() {
  local target=$1
  shift
  uv pip compile --quiet --generate-hashes --no-header --no-annotate --python-version 3.11 \
    --output-file "lock/$target" "$@"
}

grep '^setuptools==' requirements.txt >lock/setuptools.in
lock setuptools.txt --universal lock/setuptools.in
rm lock/setuptools.in
lock docs.txt --universal requirements-docs.txt "$@"
# One file for Python 3.11 to 3.13: markers name what only some of them need.
lock python.txt --universal "${requirements[@]}" "$@"
# Installed only if no ROS is sourced; uses the versions of the other lock file.
lock ros.txt --python-platform x86_64-manylinux_2_28 requirements-ros.txt --constraints lock/python.txt "$@"
cat requirements{-extras,-ros,-test,-training,}.txt | sha256sum | cut -d' ' -f1 >lock/requirements.sha256
