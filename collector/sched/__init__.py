"""The scheduler collector: how long threads wait for a CPU, who had it instead, and what stole time from them."""
