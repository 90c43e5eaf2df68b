"""What a message is and how it travels. Knows nothing of pages, sagas or actors."""
