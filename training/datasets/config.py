# SPDX-License-Identifier: Apache-2.0
"""Configuration of a source: a data set in one format."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from training.datasets.formats import FORMATS


@dataclass(frozen=True)
class DatasetConfig:
    """Configuration of one source.

    Attributes:
        path: Folder of the data set; for coco also a JSON file. A COCO folder contains JSON files,
            or a folder `annotations/` with them.
        format: 'masks' (images/ with masks/, instances/ or both), 'coco', 'labelme' or
            'unlabelled'.
        class_map: Label in the files → class name or 'ignore'. Labels are pixel values or palette
            indices as text for masks ('255'), category names for coco, and labels for labelme.
            Empty = in masks 0 is background and 255 rock; in other formats, labels are class names.
        unlabelled: Class of the pixels that no polygon covers (coco, labelme), or that are 0 in
            masks without a class_map. 'ignore' is for data sets in which some rocks are not
            labelled.
        val_fraction: Share of the groups that are held out for validation, 0 to 1. It is used only
            if there is no manifest.csv (columns id, split, optionally group) in the folder, and if
            the label files are not divided into train and val, as those of COCO are.
        group: Regular expression that is searched in the name of an image; its first group (in
            parentheses) is the name of the scene, such as a sol or a site. A scene is in one split
            only. Empty = the column `group` of the manifest, else each image is a scene.
        exclude: Names of images that are not used.
        images: Folder of the images of coco and labelme; only the file name of labelme's
            `imagePath` is used then. Empty = the images are near the label files.
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
        """Checks the values; raises ValueError for an invalid one."""
        if self.format not in FORMATS:
            raise ValueError(f'format {self.format!r} is unknown; expected: {", ".join(FORMATS)}')
        if self.images and not FORMATS[self.format].has_image_folder:
            formats = ' and '.join(name for name, form in FORMATS.items() if form.has_image_folder)
            raise ValueError(f'images is for {formats}, not for {self.format}')
        if not 0 <= self.val_fraction <= 1:
            raise ValueError(f'val_fraction must be 0 to 1, not {self.val_fraction}')
        self._check_group()
        # YAML reads an unquoted pixel value as a number.
        text = {str(label): name for label, name in self.class_map.items()}
        object.__setattr__(self, 'class_map', text)
        if self.format == 'masks':
            for value in self.class_map:
                if not (value.isdecimal() and int(value) < 2**16):
                    raise ValueError(f'class_map: pixel value {value!r}; it must be 0 to 65535')

    def _check_group(self) -> None:
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            raise ValueError(f'group {self.group!r}: invalid regular expression: {error}') from None
        if self.group and not groups:
            raise ValueError(f'group {self.group!r} needs parentheses around the name of the scene')
