"""What holds when others strike at any point."""
