#!/usr/bin/env bash
# Prints the first Python that is new enough for swapferry (3.11); ends with 1 where there is none.
set -euo pipefail

for python in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "$python"
        exit 0
    fi
done
echo "swapferry needs Python 3.11 or newer as python3 (Debian 12: apt-get install python3 python3-venv)" >&2
exit 1
