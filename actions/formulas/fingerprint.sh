#!/bin/sh
# Prints the length and the SHA-256 of the secret DEMO_TOKEN, never the secret.

set -eu

if [ -z "${DEMO_TOKEN:-}" ]; then
    echo "DEMO_TOKEN is empty: the action must list it in its secrets" >&2
    exit 1
fi
printf 'DEMO_TOKEN has %s bytes\n' "$(printf %s "$DEMO_TOKEN" | wc -c | tr -d ' ')"
printf 'DEMO_TOKEN has the SHA-256 %s\n' "$(printf %s "$DEMO_TOKEN" | sha256sum | cut -d ' ' -f 1)"
