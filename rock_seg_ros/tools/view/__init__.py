# SPDX-License-Identifier: Apache-2.0
"""`rock_seg view`: a live page in the browser."""
