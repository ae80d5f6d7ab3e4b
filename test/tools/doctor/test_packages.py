# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.inference import weights_file
from rock_seg_ros.tools.doctor import packages

ROOT = Path(__file__).parents[3]


def setup_argument(name):
    """A literal argument of setup() in setup.py."""
    for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text())):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value)
    raise LookupError(name)


def names(requirements):
    return {re.split(r'[>=;<\s]', requirement)[0] for requirement in requirements}


def test_every_requirement_of_the_package_is_checked():
    own_checks = {'torch', 'torchvision', 'opencv-python-headless'}
    assert {*packages.REQUIRED.values(), *own_checks} == names(setup_argument('install_requires'))


def test_every_extra_of_the_package_is_checked():
    extras = setup_argument('extras_require')
    wanted = {name for extra, listed in extras.items() if extra != 'test' for name in listed}
    own_checks = {'onnxruntime', 'openvino'}
    assert {package for package, _ in packages.EXTRAS.values()} | own_checks == wanted


def test_an_old_python_is_a_failure(monkeypatch):
    monkeypatch.setattr(packages, 'PYTHON', (99, 0))
    (finding,) = packages.python()
    assert finding.state == 'failed'
    assert finding.fix.startswith('make demo PYTHON=')


def test_missing_packages_are_named_with_one_command_that_installs_them(monkeypatch):
    list(packages.required_packages())  # the others are imported before these two are missing
    monkeypatch.setitem(sys.modules, 'yaml', None)
    monkeypatch.setitem(sys.modules, 'PIL', None)
    (finding,) = packages.required_packages()
    assert finding.state == 'failed'
    assert 'yaml' in finding.text
    assert finding.fix == f'{sys.executable} -m pip install pillow PyYAML'


@pytest.mark.parametrize(
    ('check', 'module', 'state', 'package'),
    [
        (packages.torch, 'torch', 'failed', 'torch torchvision'),
        (packages.torch, 'torchvision.ops', 'failed', 'torch torchvision'),
        (packages.opencv, 'cv2', 'failed', 'opencv-python-headless'),
        (packages.openvino, 'openvino', 'warning', 'openvino'),
        (packages.onnx_runtime, 'onnxruntime', 'warning', 'onnxruntime'),
    ],
)
def test_a_missing_library_is_reported_with_the_command_that_installs_it(
    check, module, state, package, monkeypatch
):
    monkeypatch.setattr(packages, 'JETSON', Path('/no/such/file'))
    monkeypatch.setitem(sys.modules, module, None)
    (finding,) = check()
    assert finding.state == state
    assert finding.fix == f'{sys.executable} -m pip install {package}'


def test_on_a_jetson_the_fix_for_a_missing_torch_is_the_container(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, 'JETSON', tmp_path)
    monkeypatch.setitem(sys.modules, 'torch', None)
    (finding,) = packages.torch()
    assert finding.fix == 'jetson-containers run $(autotag ros:jazzy)'


def test_a_torchvision_that_does_not_match_torch_is_a_failure(monkeypatch):
    import torchvision

    def nms(*_):
        raise RuntimeError('operator torchvision::nms does not exist\nmore')

    monkeypatch.setattr(torchvision.ops, 'nms', nms)
    (finding,) = packages.torch()
    assert finding.state == 'failed'
    assert finding.text.endswith('do not match: operator torchvision::nms does not exist')


def test_installed_packages_are_ok_with_their_version():
    checks = (packages.python, packages.required_packages, packages.torch, packages.opencv)
    for check in checks:
        (finding,) = check()
        assert (finding.state, finding.fix) == ('ok', '')
    assert torch.__version__ in next(packages.torch()).text


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A machine with the driver and a GPU that torch cannot use."""
    (tmp_path / 'version').touch()
    (tmp_path / 'nvidia0').touch()
    monkeypatch.setattr(packages, 'NVIDIA_DRIVER', tmp_path / 'version')
    monkeypatch.setattr(packages, 'DEVICES', tmp_path)
    monkeypatch.setattr(packages, 'JETSON', tmp_path / 'none')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.version, 'cuda', '13.2')
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    return tmp_path


def test_without_a_driver_the_cpu_is_ok(gpu):
    (gpu / 'version').unlink()
    (finding,) = packages.cuda()
    assert (finding.state, finding.fix) == ('ok', '')
    assert 'CPU' in finding.text


def test_a_driver_that_is_too_old_is_a_warning_with_the_message_of_torch(gpu, monkeypatch):
    def is_available():
        warnings.warn('The NVIDIA driver on your system is too old (found 11040).', stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, 'is_available', is_available)
    (finding,) = packages.cuda()
    assert finding.state == 'warning'
    assert 'too old (found 11040)' in finding.text
    assert finding.fix == 'sudo ubuntu-drivers install'


def test_a_hidden_gpu_is_a_warning(gpu, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    (finding,) = packages.cuda()
    assert (finding.state, finding.fix) == ('warning', 'unset CUDA_VISIBLE_DEVICES')


def test_a_container_without_the_gpu_is_a_warning(gpu):
    (gpu / 'nvidia0').unlink()
    (finding,) = packages.cuda()
    assert (finding.state, finding.fix) == ('warning', 'docker run --gpus all IMAGE')


def test_a_torch_without_cuda_is_a_warning_where_there_is_a_gpu(gpu, monkeypatch):
    monkeypatch.setattr(torch.version, 'cuda', None)
    (finding,) = packages.cuda()
    assert finding.state == 'warning'
    assert '--force-reinstall torch torchvision' in finding.fix


def test_a_gpu_that_runs_no_kernel_is_a_failure(gpu, monkeypatch):
    def ones(*_, **__):
        raise RuntimeError('CUDA error: no kernel image is available for execution on the device')

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda _: 'Tesla K80')
    monkeypatch.setattr(torch, 'ones', ones)
    (finding,) = packages.cuda()
    assert finding.state == 'failed'
    assert finding.text.startswith('Tesla K80')
    assert finding.fix == 'export CUDA_VISIBLE_DEVICES='


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_is_ok_with_its_name_and_memory():
    (finding,) = packages.cuda()
    assert finding.state == 'ok'
    assert torch.cuda.get_device_name(0) in finding.text


def test_each_missing_extra_is_a_warning_that_names_its_purpose(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ray', None)
    found = {finding.name: finding for finding in packages.extras()}
    assert found['ray'].state == 'warning'
    assert 'jobs on a cluster' in found['ray'].text
    assert found['ray'].fix == f'{sys.executable} -m pip install ray'
    assert found['argcomplete'].state == 'ok'


def test_damaged_weights_are_a_failure(monkeypatch, tmp_path):
    damaged = tmp_path / 'light.safetensors'
    damaged.write_bytes(b'version https://git-lfs.github.com/spec/v1\n')
    monkeypatch.setattr(weights_file, 'embedded_path', lambda name: damaged)
    (finding,) = packages.weights()
    assert finding.state == 'failed'
    assert 'Git LFS pointer' in finding.text
    assert finding.fix == f'git -C {tmp_path} checkout -- light.safetensors'


def test_the_embedded_weights_are_loaded_and_the_network_runs(monkeypatch, light_weights_file):
    monkeypatch.setattr(weights_file, 'embedded_path', lambda name: light_weights_file)
    first, second, network = packages.weights()
    assert [f.state for f in (first, second, network)] == 3 * ['ok']
    assert 'SHA-256' in first.text
    assert 'ms for a 640×480 image' in network.text
