#!/usr/bin/env bash
# Unpacks promtool of Debian's package prometheus to a path: promtool.sh PATH. The package is not installed, since it would start a server.
set -euo pipefail
to=$1
if ! command -v apt-get >/dev/null; then
	echo "missing: promtool; install Prometheus' tools with your system's package manager" >&2
	exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
if ! apt-get download -qq prometheus 2>/dev/null; then # no lists yet, or old ones
	sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
	$sudo apt-get update -qq
	apt-get download -qq prometheus
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar x ./usr/bin/promtool
mkdir -p "$(dirname "$to")"
mv usr/bin/promtool "$to"
