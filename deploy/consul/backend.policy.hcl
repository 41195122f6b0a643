# What a member of the service chat needs of Consul: to register itself and show signs of life, and to see the others, which write includes. And the
# nodes that they are on. It cannot be less: Consul has no right to write one instance and not the others of a service.
service "chat" {
  policy = "write"
}
node_prefix "" {
  policy = "read"
}
