# SPDX-License-Identifier: Apache-2.0
"""Decoding of image files and encoded image data to arrays, and encoding."""
