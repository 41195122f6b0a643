#!/usr/bin/env bash
# Looks the module's dependencies up in the vulnerability database. Where that cannot be reached it says so and passes.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(bin/govulncheck ./... 2>&1)
status=$?
if [ $status -ne 0 ] && grep -q 'fetching vulnerabilities' <<<"$out" && ! grep -q '^Vulnerability #' <<<"$out"; then
	echo 'skipped: the vulnerability database cannot be reached'
	exit 0
fi
echo "$out"
exit $status
