"""What threads are promised."""
