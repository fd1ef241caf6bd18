"""What the engine means, as operations on a database; written once, knows no driver."""
