# SPDX-License-Identifier: Apache-2.0
"""Rock scenes in three dimensions, ray cast to pictures with exact labels, depth and poses."""
