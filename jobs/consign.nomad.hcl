# The agent as a Nomad service. It has no token: Nomad gives it an identity, which Nomad's ACL policy and Vault's
# role are bound to. `consign bootstrap --under-nomad` makes both; docs/operate.md walks through it.
#
#     nomad job run -namespace=consign -var "config=$(cat consign.toml)" jobs/consign.nomad.hcl

variable "config" {
  description = "Text of consign.toml; what this job sets by environment stands over it"
  type        = string
}

variable "namespace" {
  description = "Namespace of the base jobs; best another one than this job's own"
  type        = string
  default     = "default"
}

variable "vault_addr" {
  description = "Address of Vault's HTTP API, as the agent's node reaches it; empty for what config says"
  type        = string
  default     = ""
}

# The program: the image where one is given, else what is downloaded, else the file on the node.

variable "binary" {
  description = "Path of the program on the node, which has git"
  type        = string
  default     = "/usr/local/bin/consign"
}

variable "artifact" {
  description = "Address that Nomad downloads an archive with consign in it from; ?checksum=sha256:… is checked"
  type        = string
  default     = ""
}

variable "image" {
  description = "Image that scripts/container built"
  type        = string
  default     = ""
}

variable "driver" {
  description = "Driver; empty for docker with an image and raw_exec without. exec needs git in its chroot"
  type        = string
  default     = ""
}

variable "user" {
  description = "User on the node that the agent runs as; it owns the store. Not for an image, which has its own"
  type        = string
  default     = "root"
}

# The store: it must be the same folder after an update, so the job stays on one node.

variable "store" {
  description = "Folder of the store and of the ops repo's mirror; on the node, or where the volume is mounted"
  type        = string
  default     = "/var/lib/consign"
}

variable "volume" {
  description = "Host volume mounted there; needed with an image and under exec"
  type        = string
  default     = ""
}

variable "node" {
  description = "Name of the node that has the folder; empty where the volume or a single node decides"
  type        = string
  default     = ""
}

variable "port" {
  description = "Port that the agent listens on, on its node"
  type        = number
  default     = 8480
}

variable "from_variable" {
  description = "Items of the Nomad variable nomad/jobs/<this job> that become files in the secrets folder, such as deploy_key"
  type        = list(string)
  default     = []
}

variable "environment" {
  description = "Further environment of the agent, such as GIT_SSH_COMMAND; a $${…} in a value is Nomad's"
  type        = map(string)
  default     = {}
}

variable "vault_role" {
  description = "Vault role that the agent logs in with"
  type        = string
  default     = "consign-agent"
}

variable "audience" {
  description = "Audience of the identity for Vault, as [vault] audience"
  type        = string
  default     = "vault.io"
}

locals {
  driver  = var.driver != "" ? var.driver : var.image != "" ? "docker" : "raw_exec"
  program = var.artifact == "" ? var.binary : "${NOMAD_TASK_DIR}/consign"
}

job "consign" {
  type        = "service"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  dynamic "constraint" {
    for_each = var.node == "" ? [] : [var.node]

    content {
      attribute = "${node.unique.name}"
      value     = constraint.value
    }
  }

  group "consign" {
    # The store has one owner: a second agent would refuse to start.
    count = 1

    # The new agent starts when the old one has ended; one that is not ready is taken back.
    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "5s"
      healthy_deadline = "2m"
      auto_revert      = true
    }

    restart {
      attempts = 5
      interval = "5m"
      delay    = "5s"
      mode     = "delay"
    }

    # A node that is away keeps its agent: the store is there.
    disconnect {
      lost_after = "24h"
      replace    = false
    }

    network {
      port "http" {
        static = var.port
        to     = var.port
      }
    }

    dynamic "volume" {
      for_each = var.volume == "" ? [] : [var.volume]
      labels   = ["store"]

      content {
        type   = "host"
        source = volume.value
      }
    }

    task "consign" {
      driver = local.driver
      user   = var.image == "" ? var.user : ""

      # The agent ends the step in hand and pushes what results there are; tasks run on.
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      dynamic "config" {
        for_each = var.image == "" ? [local.program] : []

        content {
          command = config.value
          args    = ["agent", "--config", "${NOMAD_TASK_DIR}/consign.toml"]
        }
      }

      dynamic "config" {
        for_each = var.image == "" ? [] : [var.image]

        content {
          image           = config.value
          args            = ["agent", "--config", "${NOMAD_TASK_DIR}/consign.toml"]
          ports           = ["http"]
          readonly_rootfs = true
          cap_drop        = ["all"]
          security_opt    = ["no-new-privileges"]
          pids_limit      = 200
        }
      }

      resources {
        cpu    = 200
        memory = 256
      }

      # What Nomad's ACL policy is bound to. It ends after an hour; Nomad writes a new one into the same file.
      identity {
        name = "consign"
        aud  = ["nomadproject.io"]
        file = true
        ttl  = "1h"
      }

      # What Vault's role is bound to.
      identity {
        name = "vault_default"
        aud  = [var.audience]
        ttl  = "1h"
      }

      # Nomad logs in with it and keeps the token in a file.
      vault {
        role        = var.vault_role
        env         = false
        change_mode = "noop"
      }

      env = merge(var.environment, {
        # Nomad would put this job's own namespace here.
        NOMAD_NAMESPACE          = var.namespace
        NOMAD_ADDR               = "unix://${NOMAD_SECRETS_DIR}/api.sock"
        CONSIGN_NOMAD_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/nomad_consign.jwt"
        VAULT_ADDR               = var.vault_addr
        CONSIGN_VAULT_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/vault_token"
        CONSIGN_STORE_PATH       = var.store
        CONSIGN_SERVER_LISTEN    = var.image == "" ? "${NOMAD_ADDR_http}" : "0.0.0.0:${NOMAD_PORT_http}"
      })

      template {
        destination     = "${NOMAD_TASK_DIR}/consign.toml"
        change_mode     = "restart"
        left_delimiter  = "[[[consign"
        right_delimiter = "consign]]]"
        data            = var.config
      }

      dynamic "template" {
        for_each = var.from_variable

        content {
          destination = "${NOMAD_SECRETS_DIR}/${template.value}"
          # ssh wants a key of its own user closed to others; another user has to be able to read it.
          perms       = var.image == "" && var.user == "root" ? "600" : "644"
          change_mode = "restart"
          data        = "{{ with nomadVar (print \"nomad/jobs/\" (env \"NOMAD_JOB_ID\")) }}{{ .${template.value} }}{{ end }}\n"
        }
      }

      dynamic "artifact" {
        for_each = var.artifact == "" || var.image != "" ? [] : [var.artifact]

        content {
          source      = artifact.value
          destination = "local/"
        }
      }

      dynamic "volume_mount" {
        for_each = var.volume == "" || local.driver == "raw_exec" ? [] : [var.volume]

        content {
          volume      = "store"
          destination = var.store
        }
      }

      service {
        name     = "consign"
        port     = "http"
        provider = "nomad"

        check {
          name     = "alive"
          type     = "http"
          path     = "/livez"
          interval = "10s"
          timeout  = "2s"

          check_restart {
            limit = 6
            grace = "60s"
          }
        }

        check {
          name     = "ready"
          type     = "http"
          path     = "/readyz"
          interval = "5s"
          timeout  = "2s"
        }
      }
    }
  }
}
