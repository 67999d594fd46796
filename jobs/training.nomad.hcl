# The base job for training: as the runner, with a GPU, more of everything else, and a host volume that keeps
# checkpoints when the allocation is gone.
#
# It works as it stands (`nomad job run jobs/training.nomad.hcl`, from the folder above). consign registers it
# with these defaults replaced by its configuration, and with the driver that the configuration names. An
# action's or a formula's `resources` count before those below; `gpus = 0` takes the device away.

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

job "training" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  parameterized {
    payload       = "optional"
    meta_optional = ["secrets", "args", "consign", "formula", "context", "action_id"]
  }

  group "training" {
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

    ephemeral_disk {
      size = 5000
    }

    # Nodes that train offer it in their client configuration, writable for whom tasks run as. The driver
    # raw_exec has no volumes.
    volume "training" {
      type      = "host"
      source    = "training"
      read_only = false
    }

    task "training" {
      driver       = "docker"
      kill_timeout = "10s"
      # exec and raw_exec would send SIGINT, which a shell's background processes do not hear.
      kill_signal  = "SIGTERM"

      # exec and raw_exec take the wrapper alone. Under docker the task is as closed as the runner, but for
      # the processes that load data.
      config {
        image           = "debian:stable-slim"
        entrypoint      = ["/bin/sh"]
        command         = "${NOMAD_TASK_DIR}/consign/wrapper"
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
        pids_limit      = 4096

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
        volume      = "training"
        destination = "/srv/training"
      }

      resources {
        cpu    = 1000
        memory = 4096

        device "nvidia/gpu" {
          count = 1
        }
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

      # CHECKPOINTS, a folder for each action: a later attempt at it finds what an earlier one left there. Work
      # that has no action id goes by its job id, and what is dispatched by hand by its allocation. Each task of
      # this job can write to all of the volume.
      template {
        destination          = "${NOMAD_SECRETS_DIR}/checkpoints"
        env                  = true
        change_mode          = "noop"
        once                 = true
        error_on_missing_key = true
        data                 = <<TEMPLATE
{{- with env "NOMAD_META_consign" }}{{ with (. | base64Decode | parseJSON) }}
CHECKPOINTS=/srv/training/{{ or .action_id .job_id }}
{{- end }}{{ else }}
CHECKPOINTS=/srv/training/by-hand-{{ env "NOMAD_ALLOC_ID" }}
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
