"""How nbval reads the committed notebooks: warnings on stderr do not count, a slow machine gets time."""


def pytest_collection_modifyitems(items):
    for item in items:
        if hasattr(item, "skip_compare"):
            item.skip_compare = (*item.skip_compare, "stderr")
            item.output_timeout = 120
