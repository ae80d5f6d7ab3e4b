# SPDX-License-Identifier: Apache-2.0
"""Settings of Sphinx, which builds the documentation: `make docs`."""

project = 'rock_seg_ros'
author = 'rock_seg_ros maintainers'
copyright = 'rock_seg_ros maintainers, Apache-2.0'
extensions = ['myst_parser']
myst_heading_anchors = 3  # links to headings, as GitHub makes them
exclude_patterns = ['_build']
html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['wide.css']
html_title = 'rock_seg_ros'
html_show_sphinx = False
html_copy_source = False
