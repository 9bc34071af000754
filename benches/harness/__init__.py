"""What scripts/bench is made of.

cases     what is measured, and the numbers asked of it (ASKED)
variants  what is run against a copy of the table: floor1, rekey run, the guide's script, …
session   one benchmark from start to end
cluster   a throw-away PostgreSQL: its configurations, copies of a loaded database
measure   one run: time, CPU, memory, WAL, HOT, growth
report    medians and verdicts as text and JSON; plot draws benches/plot.svg
profile   where each microsecond goes (--profile); model, what larger tables would cost (--model)
"""
