# SPDX-License-Identifier: Apache-2.0
"""Rock scenes in three dimensions, ray cast to images with exact labels, depth and poses."""
