"""What this host is set to: kernel, CPUs, interrupts, cards, limits; and every difference (docs/host.md)."""
