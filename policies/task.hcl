# Vault policy of every task's token before anything is granted: it can keep itself alive and end
# itself, and that is all. It stands in for Vault's default policy, which would allow more.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

path "auth/token/revoke-self" {
  capabilities = ["update"]
}
