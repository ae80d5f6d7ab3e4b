# SPDX-License-Identifier: Apache-2.0
"""Converts the labels in the files of a source to class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from training.datasets.sample import IGNORE, DataError
from training.datasets.selection import join_first

IGNORED = 'ignore'
BACKGROUND = 'background'
MAX_LISTED = 10  # valid values that a message lists


@dataclass(frozen=True)
class Labels:
    """The class map of a source, with the classes of the training.

    Attributes:
        classes: Class names; the index is the class id.
        class_map: Label in the files → class name or 'ignore'; empty = labels are class names.
        unlabelled: Class name of the pixels that no polygon covers, or 'ignore'.
    """

    classes: Sequence[str]
    class_map: Mapping[str, str]
    unlabelled: str

    def __post_init__(self) -> None:
        """Checks the values; raises DataError for too many classes or an unknown class."""
        if len(self.classes) > IGNORE:  # class ids are uint8
            raise DataError(f'there are {len(self.classes)} classes; the maximum is {IGNORE}')
        for name in self.class_map.values():
            self.class_id(name)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Label → class id, 255 where ignored."""
        names = self.class_map or {name: name for name in (*self.classes, IGNORED)}
        return {label: self.class_id(name) for label, name in names.items()}

    def id_of(self, label: str) -> int:
        """Returns the class id of a label, 255 where ignored.

        Raises:
            DataError: The class map does not contain the label.
        """
        if label not in self.ids:
            expected = join_first(self.ids, most=MAX_LISTED)
            raise DataError(f'has the label {label!r}; expected: {expected}; class_map maps others')
        return self.ids[label]

    def class_id(self, name: str) -> int:
        """Returns the id of a class, 255 for 'ignore'.

        Raises:
            DataError: The class is unknown.
        """
        if name == IGNORED:
            return IGNORE
        if name not in self.classes:
            expected = join_first((*self.classes, IGNORED), most=MAX_LISTED)
            raise DataError(f'class {name!r} is unknown; expected: {expected}')
        return list(self.classes).index(name)

    def has_instances(self, class_id: int) -> bool:
        """Whether each region of a class is an instance, which holds for all but background."""
        return class_id == IGNORE or self.classes[class_id] != BACKGROUND
