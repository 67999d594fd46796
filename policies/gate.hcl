# Vault policy of the launch gate: a task whose template can read this entry may start.
# `consign bootstrap` fills in what stands in angle brackets.
path "<kv>/data/consign/go" {
  capabilities = ["read"]
}
