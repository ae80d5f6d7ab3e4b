# SPDX-License-Identifier: Apache-2.0
"""Images → class ids and confidence: weights, networks, backends."""
