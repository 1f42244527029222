#!/usr/bin/env bash
# publish.sh TEXTS: a pull request with the week's files, and an issue where something is worse.
#
# A run that is repeated finds the branch, the pull request and the issue, and adds nothing twice.
set -euo pipefail

texts=$1
if [ ! -s "$texts/pull-request.md" ] || [ -z "$(git status --porcelain -- results docs README.md)" ]; then
    echo "nothing new: no release differs, or everything is there already"
    exit 0
fi
monday=$(cat "$texts/monday")
if [[ ! "$monday" =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}$ ]]; then
    echo "::error::the week's record is damaged: no date of a Monday"
    exit 1
fi

cannot() {
    echo "::error::$1; the files are in this run's artifact \`weeks\`"
    exit 1
}

branch=track # one for all weeks: those that nobody has merged yet are in it, too
git switch --quiet --force-create "$branch"
git add -- results docs README.md
git -c user.name="jax-bakeoff" -c user.email="bakeoff@users.noreply.github.com" \
    commit --quiet --message "The week to $monday"
git -c "credential.helper=!f() { echo username=x-access-token; echo \"password=\$GH_TOKEN\"; }; f" \
    push --quiet --force "https://github.com/$GITHUB_REPOSITORY.git" "HEAD:refs/heads/$branch" \
    || cannot "the branch $branch cannot be pushed: the job needs \`contents: write\`"
# On lines of their own, so that a request that fails is no empty answer
pull=$(gh pr list --head "$branch" --state open --json number --jq '.[].number')
if [ -z "$pull" ]; then
    gh pr create --head "$branch" --title "The week to $monday" --body-file "$texts/pull-request.md" \
        || cannot "no pull request could be opened: allow Actions to create them in the settings"
fi
for text in "$texts"/issue-????-??-??.md; do
    if [ ! -s "$text" ]; then continue; fi
    title="Slower in the week to $(basename "$text" .md | cut -d- -f2-)"
    issue=$(gh issue list --state all --limit 200 --json title --jq ".[] | select(.title == \"$title\") | .title")
    if [ -z "$issue" ]; then
        gh issue create --title "$title" --body-file "$text" \
            || cannot "no issue could be opened: the job needs \`issues: write\`"
    fi
done
