// Package verify holds the files of deploy/ against those who will read them: systemd, Docker, Compose, Kubernetes, Nomad, Prometheus and
// Grafana, each by its own parser or types, and against what selvedge is: its commands, flags, settings and metrics. Everything is in its
// tests. It is a module of its own, so that none of those parsers becomes a dependency of the product.
package verify
