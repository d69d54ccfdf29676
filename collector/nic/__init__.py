"""Network cards, their queues, and sockets: counters and levels by raw netlink and ioctl (docs/host.md)."""
