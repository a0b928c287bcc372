"""``python -m device_sdk``: what a device does at a terminal.

Owns: the choice of the command; there is one, ``claim``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    if sys.argv[1:2] != ["claim"]:
        sys.stderr.write("use: python -m device_sdk claim URL [CODE] [--help]\n")
        sys.exit(2)
    from device_sdk.claim import main

    sys.exit(main(sys.argv[2:]))
