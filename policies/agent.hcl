# Vault policy of the agent's token. `consign bootstrap` fills in what stands in angle brackets.
# It can bind allocations to secrets and open the launch gate. It reads no value, and it changes no
# Vault policy, no role and no group's rights.
# What it can do beyond its task: add any entity to a runner- or bot- group, create an empty group of
# such a name, and delete any entity that Vault named by itself (entity_…), a person's too. Where that
# is too much, give consign a Vault namespace of its own.

# Make the alias of an allocation; never one that is tied to an existing entity.
path "identity/entity-alias" {
  capabilities = ["update"]
  allowed_parameters = {
    "name" = []
    "mount_accessor" = ["<accessor>"]
  }
}

# Find the entity of an allocation that logged in first.
path "identity/lookup/entity" {
  capabilities = ["update"]
  allowed_parameters = {
    "alias_name" = []
    "alias_mount_accessor" = ["<accessor>"]
  }
}

# Withdraw a grant.
path "identity/entity/name/entity_*" {
  capabilities = ["delete"]
}

# See which secrets exist: names and versions, no values.
path "<kv>/metadata/<prefix>/*" {
  capabilities = ["read", "list"]
}

# See which bots exist: names and versions, no tokens.
path "<kv>/metadata/<bots>/*" {
  capabilities = ["read", "list"]
}

# Grant a secret.
path "identity/group/name/runner-*" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "member_entity_ids" = []
  }
}

# Grant a bot's token.
path "identity/group/name/bot-*" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "member_entity_ids" = []
  }
}

# Open the launch gate.
path "identity/group/name/<gate>" {
  capabilities = ["read", "update"]
  allowed_parameters = {
    "member_entity_ids" = []
  }
}
