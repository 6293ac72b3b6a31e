"""What one thread is promised."""
