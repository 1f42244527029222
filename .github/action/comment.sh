#!/usr/bin/env bash
# One comment of a pull request: posted where something was called, edited in place from then on.
#
# Where nothing was, the job's summary has the table, and nobody is written to.
set -euo pipefail

comments="repos/$GITHUB_REPOSITORY/issues"
ours=$(gh api "$comments/$NUMBER/comments" --paginate \
    --jq '.[] | select(.body | startswith("<!-- bakeoff comparison -->")) | .id')
if [ -n "$ours" ]; then
    gh api -X PATCH "$comments/comments/${ours%%$'\n'*}" -F body=@"$TABLE" > /dev/null
elif grep -qE '(Worse|Faster|Differs, within the margin of [^:]*): ' "$TABLE"; then
    gh api "$comments/$NUMBER/comments" -F body=@"$TABLE" > /dev/null
fi
