#!/usr/bin/env bash
# One A/B in a job: its table goes into the job's summary, its verdict becomes the step's.
#
# Only an A/B that has a result writes a table. Without one no status is a verdict, whoever failed
# (uvx, a build, bakeoff itself): the step fails, with the words that stand above.
set -euo pipefail

fail() {
    echo "::error::$1"
    exit 1
}

if [ -z "$BASE$PACKAGE" ]; then
    fail "nothing to compare with: give \`base\`, as in base: \"@-7d\", or \`package\` for its checkout"
fi
folder=$(mktemp -d "$RUNNER_TEMP/bakeoff-XXXXXX")  # a job may have several
table="$folder/ab.md"
new=current
if [ -n "$PACKAGE" ]; then new="$PACKAGE @ $FOLDER"; fi
words=(ab --base "${BASE:-$PACKAGE @ $FOLDER@HEAD^1}" --new "${NEW:-$new}" --budget "$BUDGET")
if [ -n "$STEP" ]; then words+=(--step "$STEP"); fi
while IFS= read -r word; do if [ -n "$word" ]; then words+=("$word"); fi; done <<< "$OPTIONS"

status=0
SECONDS=0
uvx --from "$GITHUB_ACTION_PATH" bakeoff "${words[@]}" --format md -o "$table" || status=$?
if [ ! -s "$table" ]; then fail "nothing was measured (exit status $status); the reason stands above"; fi
echo "$status" > "$folder/status"
cat "$table" >> "$GITHUB_STEP_SUMMARY"
echo "::notice::measured in $SECONDS s, environments included"
case "$status" in
    0) ;;
    1) echo "::warning::something is worse; see the summary" ;;
    2) echo "::warning::cannot say whether anything is worse; the summary says why" ;;
    *) fail "bakeoff ended with exit status $status; the reason stands above" ;;
esac
{
    echo "status=$status"
    echo "table=$table"
    echo "folder=$folder"
} >> "$GITHUB_OUTPUT"
