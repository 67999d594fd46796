#!/bin/sh
# Tries an issue out in the project's repository and keeps what came of it for the helper that verifies.
# For the base job `sidecar`, after triage.sh.

set -eu

case ${ARG_ISSUE_NUMBER:-} in
    '' | *[!0-9]*)
        echo "issue_number is '${ARG_ISSUE_NUMBER:-}': it must be a number" >&2
        exit 1
        ;;
esac

# Two keys of the project's TOML, name and test; they need no parser.
project='' test=''
while read -r key _ value; do
    value=${value#\"}
    case $key in
        name) project=${value%%\"*} ;;
        test) test=${value%%\"*} ;;
    esac
done <<TOML
${ARG_PROJECT_TOML:-}
TOML

# Both become paths, so they must be plain. The test is a program of the repository, not a command line.
case $project$test in
    *[!A-Za-z0-9_./-]* | /* | *..*)
        echo "project_toml has no plain name and test" >&2
        exit 1
        ;;
esac
if [ -z "$project" ] || [ -z "$test" ]; then
    echo "project_toml needs name = \"…\" and test = \"…\"" >&2
    exit 1
fi

cd "/srv/project-repos/$project"
notes=/srv/agent-data/$project
mkdir -p "$notes"

code=0
sh "./$test" "$ARG_ISSUE_NUMBER" >"$notes/$ARG_ISSUE_NUMBER.log" 2>&1 || code=$?
echo "$code" >"$notes/$ARG_ISSUE_NUMBER.reproduce"
if [ "$code" -eq 0 ]; then
    echo "issue $ARG_ISSUE_NUMBER of $project does not show: $test succeeds"
else
    echo "issue $ARG_ISSUE_NUMBER of $project is reproduced: $test ends with exit code $code"
fi
