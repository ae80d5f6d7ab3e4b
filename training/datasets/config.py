# SPDX-License-Identifier: Apache-2.0
"""What a source of labelled images is, as a configuration says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from training.datasets.formats import FORMATS


@dataclass(frozen=True)
class DatasetConfig:
    """One source of images.

    Attributes:
        path: Its folder; for coco, the JSON file, or a folder with some or with `annotations/`.
        format: 'masks' (images/, and masks/, instances/ or both), 'coco', 'labelme' or
            'unlabelled'.
        class_map: Label in the files → class name, or 'ignore'. Labels are grey values, or indices
            of a palette, as text for masks ('255'), category names for coco, labels for labelme.
            Empty: 0 is background and 255 rock in masks, else labels are class names themselves.
        unlabelled: Class of pixels that no outline covers (coco, labelme), or that are 0 in masks
            without a class_map, or 'ignore': for labels that leave rocks out.
        val_fraction: Share of the groups held out for validation, 0 to 1, where no manifest.csv
            (columns id, split and perhaps group) lies beside, and the label files are not of train
            and val, as COCO's are.
        group: Regular expression, found in an image's name; its first bracket names the scene
            (sol, site), and a scene is in one split only. Empty: the manifest's column `group`,
            else every image is its own.
        exclude: Names of images that are left out.
        images: Folder of the images that coco and labelme name, of labelme's `imagePath` the last
            part only; empty: they are looked for near the label files.
    """

    path: str
    format: str = 'masks'
    class_map: dict[str, str] = field(default_factory=dict)
    unlabelled: str = 'background'
    val_fraction: float = 0.2
    group: str = ''
    exclude: list[str] = field(default_factory=list)
    images: str = ''

    def __post_init__(self) -> None:
        """Refuses what cannot be, with ValueError."""
        if self.format not in FORMATS:
            raise ValueError(f'format {self.format!r} is unknown; legal is {", ".join(FORMATS)}')
        if self.images and not FORMATS[self.format].has_images_apart:
            apart = ' and '.join(name for name, form in FORMATS.items() if form.has_images_apart)
            raise ValueError(f'images is for {apart}, not for {self.format}')
        if not 0 <= self.val_fraction <= 1:
            raise ValueError(f'val_fraction must be 0 to 1, not {self.val_fraction}')
        self._check_group()
        # YAML reads an unquoted grey value as a number.
        text = {str(label): name for label, name in self.class_map.items()}
        object.__setattr__(self, 'class_map', text)
        if self.format == 'masks':
            for grey in self.class_map:
                if not (grey.isdecimal() and int(grey) < 2**16):
                    raise ValueError(f'class_map has the grey value {grey!r}; legal is 0 to 65535')

    def _check_group(self) -> None:
        try:
            brackets = re.compile(self.group).groups
        except re.error as error:
            raise ValueError(f'group {self.group!r} is no regular expression: {error}') from None
        if self.group and not brackets:
            raise ValueError(f'group {self.group!r} needs a bracket that names the scene')
