#!/bin/sh
# Greets ARG_WHO as often as ARG_HOW_OFTEN says.

set -eu

count=0
while [ "$count" -lt "${ARG_HOW_OFTEN:-1}" ]; do
    count=$((count + 1))
    printf 'hello %s, for the %s. time\n' "$ARG_WHO" "$count"
done
