# Vault policy of one secret, or of one bot's token: whoever is in the identity group of the same name may read it.
# `consign secret put` and `consign secret link` fill in what stands in angle brackets.
path "<kv>/data/<prefix>/<name>" {
  capabilities = ["read"]
}
