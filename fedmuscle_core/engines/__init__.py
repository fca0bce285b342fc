"""How messages get to clients and back; an engine is a module with `connect(federation)` -> an object with `ask`.

`ask(stages)` -> [{client: reply} of each `exchange.Stage`]; a client that does not answer is in none.  `names()`: of all
clients. `close()`, where there is one, is called after a `Federation.fit`.
"""
