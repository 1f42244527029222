#!/usr/bin/env bash
# One comment of a pull request: posted where a difference was found, edited in place from then on.
#
# Where none was, the job's summary has the table, and nobody is written to.
set -euo pipefail

# The folder is what the measuring job handed on: its files are data, and no names of files are.
TABLE="$FOLDER/ab.md"
if [ ! -s "$TABLE" ] || [ -z "$NUMBER" ]; then
    echo "no table, or no pull request: nothing to post"
    exit 0
fi
STATUS=$(cat "$FOLDER/status")
comments="repos/$GITHUB_REPOSITORY/issues"
ours=$(gh api "$comments/$NUMBER/comments" --paginate --jq \
    '.[] | select(.user.type == "Bot" and (.body | startswith("<!-- bakeoff comparison -->"))) | .id')
if [ -n "$ours" ]; then
    gh api -X PATCH "$comments/comments/${ours%%$'\n'*}" -F body=@"$TABLE" > /dev/null
elif [ "$STATUS" = 1 ] || grep -qE '(Faster|Differs, within the margin of [^:]*): ' "$TABLE"; then
    gh api "$comments/$NUMBER/comments" -F body=@"$TABLE" > /dev/null
fi
