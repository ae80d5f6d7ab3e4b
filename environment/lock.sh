#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes the lock files of x86-64 Linux anew, with uv: pip install uv==0.13.9
#   --upgrade  takes the newest of what the requirements leave open; else what is locked stays
set -euo pipefail
export LC_ALL=C

cd "$(dirname "${BASH_SOURCE[0]}")"
requirements=(requirements.txt requirements-extras.txt requirements-training.txt requirements-test.txt)

lock() {
  local target=$1
  shift
  uv pip compile --quiet --generate-hashes --no-header --no-annotate \
    --python-version "$version" --python-platform x86_64-manylinux_2_28 --output-file "$target" "$@"
}

# Of no Python version in particular: what builds packages without a wheel, and the documentation.
version=3.11
grep '^setuptools==' requirements.txt >lock/setuptools.in
lock lock/setuptools.txt lock/setuptools.in
rm lock/setuptools.in
lock lock/docs.txt requirements-docs.txt "$@"
for version in 3.11 3.12 3.13; do
  lock "lock/python$version.txt" "${requirements[@]}" "$@"
  # Only where no ROS is sourced, in the versions that the rest is in.
  lock "lock/python$version-ros.txt" requirements-ros.txt --constraints "lock/python$version.txt" "$@"
done
cat requirements{-extras,-ros,-test,-training,}.txt | sha256sum | cut -d' ' -f1 >lock/requirements.sha256
