# SPDX-License-Identifier: Apache-2.0
"""Class ids → rocks, and the same rocks again in the next image."""
