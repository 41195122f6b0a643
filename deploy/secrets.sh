#!/bin/sh
# Makes the secrets that edges, backends and senders share, one file each: secrets.sh DIR. What is there already stays. Consul's tokens come from
# Consul: see consul/README.md; what is in a bridge's bridge.env, from whoever runs the broker.
set -eu
dir=${1:?"where to put them: secrets.sh DIR"}
mkdir -p "$dir"
chmod 0750 "$dir"
for name in edge-secret rpc-token peer-token admin-token; do
	[ -s "$dir/$name" ] || head -c 32 /dev/urandom | base64 > "$dir/$name"
	chmod "${MODE:-0640}" "$dir/$name"
done
# What an edge shows to backends for the pushes that its admin port passes on.
printf 'SELVEDGE_TOKEN=%s\n' "$(cat "$dir/rpc-token")" > "$dir/edge.env"
chmod "${MODE:-0640}" "$dir/edge.env"
