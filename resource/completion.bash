# SPDX-License-Identifier: Apache-2.0
# Completes the options of rock_seg, where argcomplete is installed.
if command -v register-python-argcomplete >/dev/null; then
  eval "$(register-python-argcomplete rock_seg)"
fi
