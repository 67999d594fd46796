#!/bin/sh
# Sorts an issue: says whose it is and what comes next, and leaves a note for the helpers that follow.
# For the base job `sidecar`: it runs as a bot, with the bot's token, and shares folders with the other helpers.

set -eu

case ${ARG_ISSUE_NUMBER:-} in
    '' | *[!0-9]*)
        echo "issue_number is '${ARG_ISSUE_NUMBER:-}': it must be a number" >&2
        exit 1
        ;;
esac

# Two keys of the project's TOML, name and forge; they need no parser.
project='' forge=''
while read -r key _ value; do
    value=${value#\"}
    case $key in
        name) project=${value%%\"*} ;;
        forge) forge=${value%%\"*} ;;
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

if [ -d "/srv/project-repos/$project" ]; then
    next="reproduce it in /srv/project-repos/$project"
else
    next="clone ${forge:-the forge}/$project into /srv/project-repos first"
fi

# A real helper would ask the forge here, with BOT_TOKEN in a header and never in its output.
if [ -z "${BOT_TOKEN:-}" ]; then
    next="$next; nothing can be said on the forge, because there is no bot"
fi

notes=/srv/agent-data/$project
mkdir -p "$notes"
echo "$next" >"$notes/$ARG_ISSUE_NUMBER.triage"
echo "issue $ARG_ISSUE_NUMBER of $project, as ${BOT_NAME:-nobody}: $next"
