"""The pytest plugin; pytest loads it in every run where manual-bp is installed, so it imports nothing heavy."""
