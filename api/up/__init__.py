"""`tailsight up`: the server, the store, the agent and the order path as one supervised set of processes.

`supervisor` starts, restarts and stops them, `hold` sees to it that one set runs per data directory, `plan` says which
programs there are, `figures` asks the server what there is to show, `view` shows it, `run` ties them together.
"""
