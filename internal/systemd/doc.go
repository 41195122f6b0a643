// Package systemd speaks with the service manager that has started this process, if it was one: sockets that it listens on for us come as
// descriptors (systemd.socket(5), sd_listen_fds(3)), and states go to it (sd_notify(3), Type=notify-reload). Without a service manager
// there are no sockets, and states go nowhere.
package systemd
