#!/usr/bin/env bash
# take.sh WEEKS TEXTS: the weeks that the measuring job has handed on, into the repository. No token is here.
set -euo pipefail

make setup
.venv/bin/python results/tracking/track.py --take "$1" --describe "$2"
make results
