# What an edge needs of Consul for the service chat: to see its instances, and the nodes that they are on (a member without an address of its own has
# its node's; without the second rule Consul leaves the instances out). One "service" rule for each service that routes name.
service "chat" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
