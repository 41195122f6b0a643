# A member of the service chat that does not use package backend: edges bring its users to it; pushes to them are answered `unimplemented`. A service
# that uses the package registers itself: no file.
service {
  id      = "old-1"
  name    = "chat"
  address = "10.0.0.9"
  port    = 9000
  # Its name on the ring. Without it that is NODE/ID: another host, other users.
  meta = { selvedge-id = "old-1" }
  # Times the share of users of a member with 1; a check that warns can lower it. 0 takes it off the ring.
  weights {
    passing = 1
    warning = 1
  }
  check {
    id       = "old-1-answers"
    http     = "http://10.0.0.9:9000/healthz"
    interval = "2s"
    timeout  = "1s"
  }
}
