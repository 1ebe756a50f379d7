"""What the real-client tests are built from: a server per configuration, hosts of real clients,
tokens, and judgements on what was received."""
