# Nomad ACL policy of the agent: `nomad acl policy apply consign policies/nomad-agent.hcl`.
# Put the namespace of [nomad] namespace in place of "default".

namespace "default" {
  capabilities = [
    "list-jobs",
    "read-job",
    "parse-job",
    "submit-job",
    "dispatch-job",
    "read-logs",
    "read-fs",
  ]
}

node {
  policy = "read"
}

# The host volumes of [mounts]: "read" for read-only ones, else "write".
host_volume "ssh" {
  policy = "read"
}

host_volume "gpg" {
  policy = "read"
}

host_volume "sops" {
  policy = "read"
}

# The host volume of the base job `training`.
host_volume "training" {
  policy = "write"
}
