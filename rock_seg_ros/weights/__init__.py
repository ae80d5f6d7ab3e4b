# SPDX-License-Identifier: Apache-2.0
"""The embedded default weights, package data."""
