# What the agent of a host needs to register what *.service.hcl say: acl.tokens.config_file_registration.
service "selvedge-edge" {
  policy = "write"
}
service "chat" {
  policy = "write"
}
