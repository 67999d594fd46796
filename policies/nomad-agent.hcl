# Nomad ACL policy of the agent. `consign bootstrap --under-nomad` binds it to the agent's own job; for an
# agent elsewhere: `nomad acl policy apply consign policies/nomad-agent.hcl`, and a token with it.
# Put the namespace of [nomad] namespace in place of "default". Nomad before 1.11.2 does not know
# "register-job" and "deregister-job": "submit-job" stands in for both, and allows more.

namespace "default" {
  capabilities = [
    "list-jobs",
    "read-job",
    "parse-job",
    "register-job",
    "deregister-job",
    "dispatch-job",
    "read-fs",
  ]
}

# Which nodes there are, and what drivers, volumes and devices they have.
node {
  policy = "read"
}

# The host volumes of [mounts] and of the base jobs, here those of the default configuration: "read" where all
# only read, else "write". Add a block for each other one; `consign bootstrap --under-nomad` writes them from its
# configuration. A policy can name letters, digits and "-" alone.
host_volume "ssh" {
  policy = "read"
}

host_volume "gpg" {
  policy = "read"
}

host_volume "sops" {
  policy = "read"
}

# That of the base job `training`.
host_volume "training" {
  policy = "write"
}

# The host volumes of the base job `sidecar`.
host_volume "project-repos" {
  policy = "write"
}

host_volume "ops-repo" {
  policy = "read"
}

host_volume "agent-data" {
  policy = "write"
}
