#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the virtual environment. It is built again only if its key changes; --key prints the key.
# On x86-64, every installed file is checked against a hash in lock/, which lock.sh writes.
#   PYTHON  interpreter to build it from (default: python3)
#   VENV    folder to build it in (default: .venv in the parent folder)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
python=${PYTHON:-python3}
venv=$(realpath -m "${VENV:-$root/.venv}")
stamp=$venv/rock_seg_ros.key
distro=${ROS_DISTRO:-}

fail() {
  echo "$1" >&2
  exit 1
}

refuse_old_ros() {
  case $distro in
    kinetic | melodic | noetic | ardent | bouncy | crystal | dashing | eloquent | foxy | galactic | humble | iron)
      fail "ROS $distro is too old, Jazzy or newer is needed; on a Jetson use a Jazzy container: docker run --runtime nvidia -it ros:jazzy, or jetson-containers run \$(autotag ros:jazzy)" ;;
  esac
}

refuse_python() {
  local major minor rest
  read -r major minor rest <<<"$1"
  if ((major != 3 || minor < 11)) || { [[ -z $distro ]] && ((minor > 13)); }; then
    fail "$python is Python $major.$minor; 3.11 to 3.13 are supported, name one with PYTHON=..."
  fi
}

install() {
  "$venv/bin/python" -m pip install --disable-pip-version-check "$@"
}

build() {
  local options=() pins=() locks=("$here/lock/python.txt") file
  if [[ -n $distro ]]; then
    "$python" -c 'import rclpy' 2>/dev/null || fail "ROS $distro is sourced, but $python has no rclpy; name ROS's own with PYTHON=/usr/bin/python3"
    options+=(--system-site-packages)
  else
    locks+=("$here/lock/ros.txt")
  fi
  "$python" -c 'import ensurepip' 2>/dev/null || fail "$python cannot make virtual environments: apt install python3-venv"
  [[ ! -e $venv || -e $venv/pyvenv.cfg ]] || fail "$venv is in the way: no virtual environment"
  rm -rf "$venv"
  "$python" -m venv "${options[@]}" "$venv"
  if [[ $(uname -m) == x86_64 ]] && ((minor <= 13)); then
    for file in "${locks[@]}"; do
      pins+=(-r "$file")
    done
    # setuptools first: it builds empy, the only package without a wheel, and pip would download it
    # without a check.
    # The locks are complete, so --no-deps: pip 23 would look for the newest version of coverage[toml],
    # which pytest-cov needs, and reject it because it is not locked.
    install --require-hashes -r "$here/lock/setuptools.txt"
    install --no-deps --require-hashes --only-binary :all: --no-binary empy --no-build-isolation "${pins[@]}"
  else
    echo "No lock file for Python $major.$minor on $(uname -m): what is installed is pinned, but not checked against hashes"
    for file in requirements.txt requirements-extras.txt requirements-training.txt requirements-test.txt; do
      pins+=(-r "$here/$file")
    done
    [[ -n $distro ]] || pins+=(-r "$here/requirements-ros.txt")
    install "${pins[@]}"
  fi
  install --no-deps --no-build-isolation -e "$root"
}

refuse_old_ros
# The interpreter behind a virtual environment, so that an activated .venv is never built from itself.
python=$("$python" -c 'import sys; print(sys._base_executable)' 2>/dev/null) &&
  identity=$("$python" -c 'import sys; print(*sys.version_info[:2], *sys.version.split(), sys.prefix)') ||
  fail "${PYTHON:-python3} is no Python; name one of 3.11 to 3.13 with PYTHON=..."
refuse_python "$identity"
read -r major minor _ <<<"$identity"
key=$({ echo "$identity" "$distro" "$root" "$venv"; cat "$here"/requirements{-extras,-ros,-test,-training,}.txt "$here"/lock/[!d]*; } | sha256sum | cut -d' ' -f1)
if [[ ${1:-} == --key ]]; then
  echo "$key"
  exit
fi
exec 9<"$here"
flock 9
if [[ $(cat "$stamp" 2>/dev/null) != "$key" ]]; then
  echo "Setting up $venv: some minutes and 8 GB, once"
  build
  echo "$key" >"$stamp"
fi
