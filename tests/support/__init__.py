"""What tests are made with: executors that count, repeat and fail, and a world of engines on one database."""
