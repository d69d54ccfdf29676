"""Comparing two populations of latencies: canary and baseline, two releases, hosts, hours, a shadow and its original.

All arithmetic takes counts by cluster and bucket (`arms`), so that messages, stored counts, `.hlog` files and saved
baselines give the same answer to the same question.
"""
