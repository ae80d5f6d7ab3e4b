# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterable
from pathlib import Path

from setuptools import find_packages, setup

NAME = 'rock_seg_ros'
HOOKS = ('commands.dsv', 'completion.bash', 'completion.zsh')
CONFIG = ('seg.*', 'foxglove_layout.json', 'nav2_*.yaml', 'fastdds.xml')


def shared(paths: Iterable[Path]) -> list[tuple[str, list[str]]]:
    """Pairs each folder under `share/rock_seg_ros` with the files that belong into it."""
    folders: dict[Path, list[str]] = {}
    for path in sorted(paths):
        if path.is_file():
            folders.setdefault(path.parent, []).append(str(path))
    return [(f'share/{NAME}/{folder}', files) for folder, files in folders.items()]


setup(
    name=NAME,
    version='0.1.0',
    description='Finds rocks in camera images with DeepLabV3, as a ROS 2 node',
    license='Apache-2.0',
    maintainer='rock_seg_ros maintainers',
    maintainer_email='maintainers@rock-seg-ros.invalid',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={
        NAME: ['py.typed'],
        f'{NAME}.perception': ['*.jinja'],
        f'{NAME}.tools': ['completion.json'],
        f'{NAME}.tools.bag': ['foxglove_msgs.msg'],
        f'{NAME}.tools.results': ['*.jinja'],
        f'{NAME}.tools.view': ['static/*'],
        f'{NAME}.weights': ['*.safetensors', 'NOTICE'],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/hook', [f'resource/{hook}' for hook in HOOKS]),  # as colcon.pkg
        *shared(Path('launch').glob('*.launch.py')),
        *shared(p for name in CONFIG for p in Path('config').glob(name)),
        *shared(path for path in Path('demo').rglob('*') if path.suffix not in ('.py', '.pyc')),
    ],
    python_requires='>=3.11',
    install_requires=[
        'av',
        'backports.zstd; python_version < "3.14"',
        'Jinja2',
        'lz4',
        'matplotlib',
        'mcap',
        'numpy',
        'opencv-python-headless',
        'pillow',
        'PyYAML',
        'rosbags',
        'safetensors',
        'timm',
        'torch>=2.10',  # before it, weights_only can be made to run code (CVE-2026-24747)
        'torchvision>=0.25',
        'tqdm',
    ],
    extras_require={
        'heif': ['pillow-heif'],
        'onnx': ['onnxruntime'],
        'openvino': ['openvino'],
        'tables': ['pandas', 'openpyxl', 'pyarrow'],
        'view': ['aiohttp'],
        'ray': ['ray'],
        'completion': ['argcomplete'],
        'test': ['pytest'],
    },
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'seg_node = rock_seg_ros.entry_points:seg_node',
            'rock_seg = rock_seg_ros.entry_points:rock_seg',
        ],
    },
)
