#!/usr/bin/env bash
# take.sh WEEKS TEXTS: the files that the measuring job has handed on, into the repository.
#
# They are data of a job that ran other people's code: plain files of a week's names, under a megabyte
# each, and nothing else; the reader of run files refuses what is no run. No token is here.
set -euo pipefail

weeks=$1 texts=$2
shopt -s nullglob
for file in "$weeks"/*.json; do
    name=$(basename "$file")
    if [[ ! "$name" =~ ^(weeks|whole|[0-9]{4}-[0-9]{2}-[0-9]{2}(-[a-z0-9_]+)*)\.json$ ]]; then
        echo "::warning::left out a file whose name is not a week's"
    elif [ -L "$file" ] || [ ! -f "$file" ] || [ "$(wc -c < "$file")" -gt 1000000 ]; then
        echo "::warning::left out $name: it is a link, or larger than a megabyte"
    else
        cp -- "$file" "results/tracking/weeks/$name"
    fi
done
make results
.venv/bin/python results/tracking/track.py --describe "$texts"
