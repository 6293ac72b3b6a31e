"""What holds beside ProxyStore and in whole programs."""
