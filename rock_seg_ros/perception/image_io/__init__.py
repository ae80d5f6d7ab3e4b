# SPDX-License-Identifier: Apache-2.0
"""Image files and coded image data → arrays, and back."""
