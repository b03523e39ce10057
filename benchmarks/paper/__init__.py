"""The tables of arXiv 2207.06920 on public recordings: `make paper`, a thin slice with `make paper-quick`.

configurations   what is trained for which table
training         trains it, in as many processes as there are cores, and keeps the models
evaluation       converts the models and runs them on clips and on continuous streams
tables           docs/results.md from that
"""
