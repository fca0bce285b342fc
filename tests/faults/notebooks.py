"""Notebooks for the fault campaign, as their sources."""

PRINTS = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
profile: str = "mini"

# %%
print(profile)
"""
# Says its process in a file of the working folder, then waits for another one.
WAITS = PRINTS + """
# %%
import os
import time
from pathlib import Path

Path("process.new").write_text(str(os.getpid()))
Path("process.new").rename("process")
while not Path("go").exists():
    time.sleep(0.05)
"""
