# SPDX-License-Identifier: Apache-2.0
"""How the labels in a source's files become class ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from training.datasets.sample import IGNORE, DataError
from training.datasets.selection import join_first

IGNORED = 'ignore'
BACKGROUND = 'background'
NAMED = 10  # most that a message names of what is legal


@dataclass(frozen=True)
class Labels:
    """A source's class map against the classes of the training.

    Attributes:
        classes: Class names; the place is the class id.
        class_map: Label in the files → class name, or 'ignore'; empty: labels
            are the class names themselves.
        unlabelled: Class name of pixels that no outline covers, or 'ignore'.
    """

    classes: Sequence[str]
    class_map: Mapping[str, str]
    unlabelled: str

    def __post_init__(self) -> None:
        """Refuses a map to a class that is not there and too many classes, with DataError."""
        if len(self.classes) > IGNORE:  # their ids are uint8
            raise DataError(f'there are {len(self.classes)} classes; {IGNORE} are the most')
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
            DataError: The class map does not name it.
        """
        if label not in self.ids:
            legal = join_first(self.ids, most=NAMED)
            raise DataError(f'has the label {label!r}; the class map knows {legal}')
        return self.ids[label]

    def class_id(self, name: str) -> int:
        """Returns the id of a class, 255 for 'ignore'.

        Raises:
            DataError: There is no such class.
        """
        if name == IGNORED:
            return IGNORE
        if name not in self.classes:
            legal = join_first((*self.classes, IGNORED), most=NAMED)
            raise DataError(f'class {name!r} is not among the classes; legal is {legal}')
        return list(self.classes).index(name)

    def is_numbered(self, class_id: int) -> bool:
        """Whether an outline of a class is a thing of its own, which all but background are."""
        return class_id == IGNORE or self.classes[class_id] != BACKGROUND
