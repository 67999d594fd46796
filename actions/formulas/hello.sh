#!/bin/sh
# Says hello from where it runs.

echo "hello from $(uname -n), action ${CONSIGN_ACTION_ID:-unknown}"
