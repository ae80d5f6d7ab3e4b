# SPDX-License-Identifier: Apache-2.0
"""Conversion between pixels and metres, and measurements in metres."""
