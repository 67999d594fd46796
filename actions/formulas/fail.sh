#!/bin/sh
# Ends with the exit code ARG_CODE, as a program that failed would.

echo "about to fail with exit code ${ARG_CODE:-1}" >&2
exit "${ARG_CODE:-1}"
