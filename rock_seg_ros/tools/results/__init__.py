# SPDX-License-Identifier: Apache-2.0
"""Files that are derived from the records of a run: tables, annotations and a report."""
