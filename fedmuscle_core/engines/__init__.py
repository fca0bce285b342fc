"""How messages get to clients and back; an engine is a module with `connect(federation)` -> an object with `ask`."""
