"""What makes actors run: pure turns, the store, the node's shell, the supervisor."""
