# Edges, backends and bridges as one job; without a broker leave out the group "bridge". Secrets are Nomad variables:
#
#   nomad var put nomad/jobs/selvedge edge_secret=... rpc_token=... peer_token=... admin_token=... consul_edge=... consul_backend=... \
#     consul_sender=... bridge_amqp=amqps://USER:PASSWORD@HOST/VHOST
#
# with what ../secrets.sh makes, Consul's tokens (../consul) and the broker's URL. `nomad job validate selvedge.nomad.hcl` checks it on your cluster.
variable "image" {
  type    = string
  default = "registry.example.com/selvedge:latest"
}

variable "datacenters" {
  type    = list(string)
  default = ["dc1"]
}

variable "backends" {
  type    = number
  default = 3
}

job "selvedge" {
  datacenters = var.datacenters
  type        = "service"

  group "edge" {
    count = 2

    # One at a time: all clients of an edge come back at once when it stops.
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "60s"
      healthy_deadline = "5m"
      auto_revert      = true
    }

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      mode = "host"
      port "http" { static = 8080 }
      port "admin" { static = 8081 }
    }

    # For balancers and Prometheus. Backends register themselves.
    service {
      name     = "selvedge-edge"
      port     = "http"
      provider = "consul"
      check {
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    # Taken out of Consul first, so that balancers turn away before SIGTERM comes.
    shutdown_delay = "5s"

    task "edge" {
      driver         = "docker"
      kill_signal    = "SIGTERM"
      kill_timeout   = "75s" # longer than drain_timeout

      config {
        image        = var.image
        args         = ["edge", "--config", "${NOMAD_TASK_DIR}/edge.yaml", "--log-format", "json"]
        network_mode = "host"
        ulimit {
          nofile = "1048576:1048576"
        }
      }

      template {
        destination   = "${NOMAD_TASK_DIR}/edge.yaml"
        change_mode   = "signal" # a reload: sessions stay
        change_signal = "SIGHUP"
        data          = <<-EOF
          listen: [{addr: ":8080"}]
          admin: {addr: ":8081", token_file: {{ env "NOMAD_SECRETS_DIR" }}/admin-token}
          consul: {addr: "127.0.0.1:8500", token_file: {{ env "NOMAD_SECRETS_DIR" }}/consul-edge, stale: true}
          routes:
            - {path: /ws, service: chat, key: "jwt:sub"}
            - {path: /, service: chat, key: none}
          services:
            chat: {edge_secret_file: {{ env "NOMAD_SECRETS_DIR" }}/edge-secret}
          auth: {jwks: "https://issuer.example/jwks.json", issuer: "https://issuer.example", audience: chat}
          limits: {per_user: 10, upgrades_per_second: 500, origins: ["https://chat.example.com"]}
          drain_delay: 5s
          drain_timeout: 60s
        EOF
      }

      # The edge sees by itself that a secret has changed.
      template {
        destination = "${NOMAD_SECRETS_DIR}/admin-token"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .admin_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/edge-secret"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .edge_secret }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/consul-edge"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .consul_edge }}{{ end }}"
      }
      # For the pushes that the admin port passes on.
      template {
        destination = "${NOMAD_SECRETS_DIR}/edge.env"
        env         = true
        data        = "SELVEDGE_TOKEN={{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .rpc_token }}{{ end }}"
      }

      resources {
        cpu    = 1000
        memory = 2048
      }
    }
  }

  group "backend" {
    count = var.backends

    # The next one drains when the one before is ready and its users have come back.
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "20s"
      healthy_deadline = "5m"
      auto_revert      = true
    }

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      mode = "host"
      port "edges" { static = 9000 }
      port "rpc" { static = 9100 }
      port "admin" { static = 9101 }
    }

    # For Nomad's updates and Prometheus; edges look for the service chat, as which each backend registers itself.
    service {
      name     = "selvedge-backend"
      port     = "admin"
      provider = "consul"
      check {
        type     = "http"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "backend" {
      driver         = "docker"
      kill_signal    = "SIGTERM"
      kill_timeout   = "75s" # longer than drain_timeout

      config {
        image        = var.image
        args         = ["backend", "--config", "${NOMAD_TASK_DIR}/backend.yaml", "--log-format", "json"]
        network_mode = "host"
        ulimit {
          nofile = "1048576:1048576"
        }
      }

      template {
        destination   = "${NOMAD_TASK_DIR}/backend.yaml"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        # The index stays when an allocation is replaced: the same id owns the same users.
        data          = <<-EOF
          backend:
            id: b{{ env "NOMAD_ALLOC_INDEX" }}
            service: chat
            listen: ":9000"
            advertise: {{ env "NOMAD_IP_rpc" }}
            edge_secret_file: {{ env "NOMAD_SECRETS_DIR" }}/edge-secret
            rpc:
              addr: ":9100"
              token_file: {{ env "NOMAD_SECRETS_DIR" }}/rpc-token
              peer_token_file: {{ env "NOMAD_SECRETS_DIR" }}/peer-token
          admin: {addr: ":9101", token_file: {{ env "NOMAD_SECRETS_DIR" }}/admin-token}
          consul: {addr: "127.0.0.1:8500", token_file: {{ env "NOMAD_SECRETS_DIR" }}/consul-backend, stale: true}
          drain_timeout: 60s
        EOF
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/admin-token"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .admin_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/edge-secret"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .edge_secret }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/rpc-token"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .rpc_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/peer-token"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .peer_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/consul-backend"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .consul_backend }}{{ end }}"
      }

      resources {
        cpu    = 1000
        memory = 2048
      }
    }
  }

  group "bridge" {
    # They share the queue: one that goes leaves what it held to the other.
    count = 2

    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "20s"
      healthy_deadline = "5m"
      auto_revert      = true
    }

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    network {
      mode = "host"
      port "admin" { static = 8082 }
    }

    # For Nomad's updates and Prometheus; nobody else looks for a bridge.
    service {
      name     = "selvedge-bridge"
      port     = "admin"
      provider = "consul"
      check {
        type     = "http"
        path     = "/readyz"
        interval = "2s"
        timeout  = "1s"
      }
    }

    task "bridge" {
      driver         = "docker"
      kill_signal    = "SIGTERM"
      kill_timeout   = "45s" # longer than twice bridge.timeout

      config {
        image        = var.image
        args         = ["bridge", "--config", "${NOMAD_TASK_DIR}/bridge.yaml", "--log-format", "json"]
        network_mode = "host"
        ulimit {
          nofile = "16384:16384"
        }
      }

      # It reads file, tokens and environment at its start: what changes restarts it, which costs no session, and not both at once.
      template {
        destination = "${NOMAD_TASK_DIR}/bridge.yaml"
        change_mode = "restart"
        splay       = "1m"
        data        = <<-EOF
          bridge:
            queue: push
            exchange: chat
            user: "json:to"
            payload: "json:text"
            service: chat
            timeout: 5s
            token_file: {{ env "NOMAD_SECRETS_DIR" }}/rpc-token
          admin: {addr: ":8082", token_file: {{ env "NOMAD_SECRETS_DIR" }}/admin-token}
          consul: {addr: "127.0.0.1:8500", token_file: {{ env "NOMAD_SECRETS_DIR" }}/consul-sender, stale: true}
        EOF
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/rpc-token"
        change_mode = "restart"
        splay       = "1m"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .rpc_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/admin-token"
        change_mode = "restart"
        splay       = "1m"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .admin_token }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/consul-sender"
        change_mode = "restart"
        splay       = "1m"
        data        = "{{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .consul_sender }}{{ end }}"
      }
      template {
        destination = "${NOMAD_SECRETS_DIR}/bridge.env"
        env         = true
        change_mode = "restart"
        splay       = "1m"
        data        = "SELVEDGE_BRIDGE__AMQP={{ with nomadVar \"nomad/jobs/selvedge\" }}{{ .bridge_amqp }}{{ end }}"
      }

      resources {
        cpu    = 250
        memory = 512
      }
    }
  }
}
