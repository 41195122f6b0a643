# An edge in Consul, for balancers in front, DNS (selvedge-edge.service.consul) and Prometheus. A file for the folder of the agent on the edge's host; its
# token needs services.policy.hcl. The edge does not register itself: nobody inside has to find it.
service {
  name = "selvedge-edge"
  port = 443
  check {
    id       = "selvedge-edge-ready"
    name     = "has members and does not drain"
    http     = "http://127.0.0.1:8081/readyz" # asks for no token
    interval = "2s"
    timeout  = "1s"
    # An edge that is gone for good is forgotten.
    deregister_critical_service_after = "1h"
  }
}
