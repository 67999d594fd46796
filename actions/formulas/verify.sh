#!/bin/sh
# Says whether an issue is gone: fails where its reproduction still fails. For the base job `sidecar`, after
# reproduce.sh.

set -eu

case ${ARG_ISSUE_NUMBER:-} in
    '' | *[!0-9]*)
        echo "issue_number is '${ARG_ISSUE_NUMBER:-}': it must be a number" >&2
        exit 1
        ;;
esac

# The name in the project's TOML; it needs no parser.
project=''
while read -r key _ value; do
    value=${value#\"}
    case $key in
        name) project=${value%%\"*} ;;
    esac
done <<TOML
${ARG_PROJECT_TOML:-}
TOML

# The name becomes part of a path, so it must be plain.
case $project in
    '' | *[!A-Za-z0-9_-]*)
        echo "project_toml has no plain name = \"…\"" >&2
        exit 1
        ;;
esac

found=/srv/agent-data/$project/$ARG_ISSUE_NUMBER.reproduce
if ! [ -r "$found" ]; then
    echo "nobody tried to reproduce issue $ARG_ISSUE_NUMBER of $project: there is no $found" >&2
    exit 1
fi
read -r code <"$found"
if [ "$code" -ne 0 ]; then
    echo "issue $ARG_ISSUE_NUMBER of $project still shows: its test ends with exit code $code" >&2
    exit 1
fi
echo "issue $ARG_ISSUE_NUMBER of $project is gone"
