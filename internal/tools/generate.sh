#!/usr/bin/env bash
# Generates Go from the proto files: `generate.sh write` into the tree, `generate.sh check` compares with what is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PWD/bin:$PATH"
out=.
if [ "${1:-}" = check ]; then
	out=$(mktemp -d)
	trap 'rm -rf "$out"' EXIT
fi
module=github.com/selvedge/selvedge
protoc -I backend/pushv1 -I internal/peerv1 --go_out="$out" --go_opt="module=$module" \
	--connect-go_out="$out" --connect-go_opt="module=$module,package_suffix=" push.proto peer.proto
[ "$out" = . ] && exit 0
# The header names protoc's version, which is the system's and may differ.
status=0
for file in $(cd "$out" && find . -name '*.go'); do
	if ! diff -u -I '^// 	protoc ' "$file" "$out/$file"; then
		echo "$file is not what the proto files make; run: make generate" >&2
		status=1
	fi
done
exit $status
