# The base job of helper agents: it runs one of three formulas as a bot, with the bot's token and the folders
# that helpers share. One dispatch is one attempt.
#
# It works as it stands (`nomad job run jobs/sidecar.nomad.hcl`, from the folder above). consign registers it
# with these defaults replaced by its configuration, and with the driver that the configuration names.

variable "role" {
  description = "Vault role that allocations log in with; it grants nothing by itself"
  type        = string
  default     = "consign-runner"
}

variable "audience" {
  description = "Audience of the workload identity, as the Vault role binds it"
  type        = string
  default     = "vault.io"
}

variable "kv" {
  description = "Mount of the KV version 2 engine"
  type        = string
  default     = "secret"
}

variable "prefix" {
  description = "Folder of the secrets in it"
  type        = string
  default     = "runner"
}

variable "bots" {
  description = "Folder of the bots' tokens in it"
  type        = string
  default     = "bots"
}

variable "gate" {
  description = "Entry of the launch gate in it"
  type        = string
  default     = "consign/go"
}

variable "lost_after" {
  description = "How long a node may be out of reach before its allocations count as lost"
  type        = string
  default     = "10m"
}

variable "formulas" {
  description = "The formulas that it runs, with blanks between; any other one ends with exit code 123"
  type        = string
  default     = "reproduce triage verify"
}

job "sidecar" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  parameterized {
    payload = "optional"
    # What follows action_id travels beside the arguments of the same names. The token of the bot that is
    # named is granted like a secret.
    meta_optional = [
      "secrets", "args", "consign", "formula", "context", "action_id",
      "issue_number", "project_toml", "bot",
    ]
  }

  group "sidecar" {
    # An attempt is never repeated by Nomad: consign decides whether there is another.
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    disconnect {
      lost_after = var.lost_after
      replace    = false
    }

    # Host volumes of Nomad's clients. raw_exec has none, and consign refuses to dispatch this job under it.
    volume "project-repos" {
      type   = "host"
      source = "project-repos"
    }

    volume "ops-repo" {
      type      = "host"
      source    = "ops-repo"
      read_only = true
    }

    volume "agent-data" {
      type   = "host"
      source = "agent-data"
    }

    ephemeral_disk {
      size = 500
    }

    task "sidecar" {
      driver       = "docker"
      kill_timeout = "10s"
      # exec and raw_exec would send SIGINT, which a shell's background processes do not hear.
      kill_signal  = "SIGTERM"

      # exec takes the wrapper alone. Under docker the task has no more than it needs: what it may write is
      # the allocation's and the volumes', it has no capability, and no program gives it one.
      config {
        image           = "debian:stable-slim"
        entrypoint      = ["/bin/sh"]
        command         = "${NOMAD_TASK_DIR}/consign/wrapper"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 512

        mount {
          type   = "bind"
          source = "tmp"
          target = "/tmp"
        }

        # What Docker keeps of what is printed until it has passed it on.
        logging {
          type = "json-file"

          config {
            max-file = "2"
            max-size = "250m"
          }
        }
      }

      volume_mount {
        volume      = "project-repos"
        destination = "/srv/project-repos"
      }

      volume_mount {
        volume      = "ops-repo"
        destination = "/srv/ops-repo"
        read_only   = true
      }

      volume_mount {
        volume      = "agent-data"
        destination = "/srv/agent-data"
      }

      resources {
        cpu    = 200
        memory = 512
      }

      logs {
        max_files     = 5
        max_file_size = 20
      }

      # Named as Nomad names the identity for Vault, so that servers need no default one.
      identity {
        name = "vault_default"
        aud  = [var.audience]
        ttl  = "1h"
      }

      vault {
        role         = var.role
        env          = false
        disable_file = true
        change_mode  = "noop"
      }

      dispatch_payload {
        file = "formula"
      }

      # The launch gate: only the one allocation that consign admits can read this entry, and no
      # task starts before all its templates are rendered.
      template {
        destination = "${NOMAD_SECRETS_DIR}/gate"
        change_mode = "noop"
        once        = true
        data        = <<TEMPLATE
{{ with secret "${var.kv}/data/${var.gate}" }}{{ end }}
TEMPLATE
      }

      # The secrets. Values are written as JSON strings, so they arrive byte for byte.
      template {
        destination          = "${NOMAD_SECRETS_DIR}/secrets"
        env                  = true
        change_mode          = "noop"
        once                 = true
        error_on_missing_key = true
        data                 = <<TEMPLATE
{{- range (env "NOMAD_META_secrets" | split ",") }}{{ $name := trimSpace . }}{{ if $name }}
{{ $name }}={{ with secret (print "${var.kv}/data/${var.prefix}/" $name) }}{{ .Data.data.value | toJSON }}{{ end }}
{{- end }}{{ end }}
TEMPLATE
      }

      # The bot, and for a dispatch by hand the arguments that its own meta brings.
      template {
        destination          = "${NOMAD_SECRETS_DIR}/bot"
        env                  = true
        change_mode          = "noop"
        once                 = true
        error_on_missing_key = true
        data                 = <<TEMPLATE
{{- with env "NOMAD_META_bot" }}
BOT_NAME={{ . | toJSON }}
BOT_TOKEN={{ with secret (print "${var.kv}/data/${var.bots}/" .) }}{{ .Data.data.value | toJSON }}{{ end }}
{{- end }}
{{- if not (env "NOMAD_META_consign") }}
ARG_ISSUE_NUMBER={{ env "NOMAD_META_issue_number" | toJSON }}
ARG_PROJECT_TOML={{ env "NOMAD_META_project_toml" | toJSON }}
{{- end }}
TEMPLATE
      }

      # The rest of the environment. It comes after the secrets: of two variables with one name the
      # later one holds.
      template {
        destination          = "${NOMAD_SECRETS_DIR}/env"
        env                  = true
        change_mode          = "noop"
        once                 = true
        error_on_missing_key = true
        data                 = file("jobs/environment.tpl")
      }

      # What the wrapper has to know and the formula has not.
      template {
        destination = "${NOMAD_TASK_DIR}/consign/plan"
        change_mode = "noop"
        once        = true
        data        = file("jobs/plan.tpl")
      }

      # The formulas that the wrapper runs.
      template {
        destination = "${NOMAD_TASK_DIR}/consign/formulas"
        change_mode = "noop"
        once        = true
        data        = <<TEMPLATE
${var.formulas}
TEMPLATE
      }

      # The wrapper: POSIX sh, consign's own. Nothing in it is a template, hence the delimiters.
      template {
        destination     = "${NOMAD_TASK_DIR}/consign/wrapper"
        change_mode     = "noop"
        once            = true
        left_delimiter  = "[[[consign"
        right_delimiter = "consign]]]"
        data            = file("jobs/wrapper.sh")
      }
    }
  }
}
