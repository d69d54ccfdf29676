"""Who can say how far REALTIME is from UTC: chronyd, ptp4l with a PTP hardware clock, and the kernel everywhere."""
