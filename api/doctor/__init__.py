"""`tailsight doctor`: is every event accounted for, does the store answer, what is not collected and why.

`system` looks at the machine, `report` puts it together with the store's answers.
"""
