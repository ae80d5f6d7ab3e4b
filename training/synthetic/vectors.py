# SPDX-License-Identifier: Apache-2.0
"""Operations on N×3 vectors."""

from __future__ import annotations

import numpy as np

from training.synthetic.materials import Floats


def dot(one: Floats, other: Floats) -> Floats:
    """Returns the N dot products of N×3 and N×3 vectors."""
    return np.einsum('ij,ij->i', one, other)


def length(vectors: Floats) -> Floats:
    """Returns the N×1 lengths of N×3 vectors."""
    return np.sqrt(dot(vectors, vectors))[:, None]
