# What a sender (package backend/sender, selvedge bridge, selvedge push --consul) needs of Consul for the service chat: to see its instances, and the nodes that they are on (a member without an address of its own has
# its node's; without the second rule Consul leaves the instances out).
service "chat" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
