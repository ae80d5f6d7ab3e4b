# SPDX-License-Identifier: Apache-2.0
"""Datasets, the Lightning module, evaluation and export; imports perception, never the node."""
